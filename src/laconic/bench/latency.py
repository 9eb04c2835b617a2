"""How much faster a slim model is than the dense one it comes from: both on one thread of one CPU, in turns.

A ratio of two medians of one run says what two separate times cannot, because a machine is never twice the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laconic.bench.timing import interleaved
from laconic.compress.modes import evaluated
from laconic.errors import ConfigError

ROUNDS = 15
WARMING = 2  # runs before any is timed


@dataclass(frozen=True)
class Latency:
    """CPU seconds of one forward pass, medians."""

    dense: float
    slim: float

    @property
    def ratio(self) -> float:
        """How many times faster the slim model is."""
        return self.dense / self.slim


def latency(
    dense: nn.Module, slim: nn.Module, inputs: Mapping[str, Any], *, batch: int = 1, rounds: int = ROUNDS
) -> Latency:
    """Times `dense(**inputs)` and `slim(**inputs)` in evaluation mode, interleaved; both then go on as they were.

    Args:
        inputs: of one example, tensors whose first dimension is the batch's; others are passed on as they are.
        batch: how often the example is repeated along that dimension.
        rounds: how often each model is timed; one slow round in two moves no median.

    Raises:
        ConfigError: for less than one round or example.
    """
    if batch < 1 or rounds < 1:
        raise ConfigError(f"latency: batch = {batch}, rounds = {rounds}; give at least 1 of each")
    given = repeated(inputs, batch)
    with evaluated(dense, slim), _one_thread(), torch.inference_mode():
        for model in [dense, slim] * WARMING:
            model(**given)
        seconds = interleaved({"dense": lambda: dense(**given), "slim": lambda: slim(**given)}, rounds)
    return Latency(seconds["dense"], seconds["slim"])


def repeated(inputs: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The inputs of an example, as those of a batch of equal examples."""
    return {
        name: value.repeat(batch, *[1] * (value.ndim - 1)) if isinstance(value, Tensor) and value.ndim else value
        for name, value in inputs.items()
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
