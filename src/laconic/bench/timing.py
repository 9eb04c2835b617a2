"""CPU time of several ways to do one thing, taken in turns.

Wall time says how busy a machine is, and a processor's clock changes from one minute to the next: so it is the CPU time
of the process, threads included, and every round times each way once.
"""

import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way over the rounds: A B C, A B C, ... Call each once before, to warm it."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Ends the block with TimeoutError after so many seconds; where there are no alarms (Windows, threads), never.

    For a process that has not run OpenVINO yet: after that (2026.4), an alarm can be the end of it.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    earlier = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
