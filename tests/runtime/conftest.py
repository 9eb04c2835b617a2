"""What tests of the engine share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same random weights in each test, whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield
