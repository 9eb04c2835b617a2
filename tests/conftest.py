"""What tests share: where reference data lies, and one torch thread so that two workers do not fight."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import pytest

SHARED = Path(os.environ.get("LACONIC_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data (photos, weights, published scores); skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}; set LACONIC_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of small golden values kept in the repository."""
    return Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is run as a program sets PyTorch's threads for its process; the tests after it go on with one."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
