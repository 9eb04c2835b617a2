"""CPU time of several ways to do one thing, taken in turns.

Wall time says how busy a machine is, and a processor's clock changes from one minute to the next: so it is the CPU time
of the process, threads included, and every round times each way once.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way over the rounds: A B C, A B C, ... after one call of each that is not counted."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
