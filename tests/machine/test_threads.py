"""Work shared by threads: every element is worked on once, whatever their number."""

import ctypes

import pytest
import torch

from laconic.machine import threads as sharing
from laconic.machine.threads import in_threads, run

FLOATS = ctypes.POINTER(ctypes.c_float)


def scale(count: int, x: int, out: int, factor: float) -> int:
    """A kernel, in Python: out = x * factor. The number of its elements."""
    source, target = (ctypes.cast(pointer, FLOATS) for pointer in (x, out))
    for i in range(count):
        target[i] = source[i] * factor
    return count


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001])
def test_threads_share_all_elements(threads, size, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(sharing, "GRAIN", 100)
    x, out = torch.randn(size), torch.full((size,), torch.nan)
    assert sum(run(scale, (x, out), (0.5,))) == size
    assert torch.equal(out, x / 2)


def test_every_thread_tells_its_result(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(sharing, "GRAIN", 100)
    x = torch.arange(303, dtype=torch.int64)
    starts = run(lambda count, pointer: (count, ctypes.c_int64.from_address(pointer).value), (x,))
    assert starts == [(101, 0), (101, 101), (101, 202)]


def test_a_task_within_a_task_does_not_wait_for_its_own_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def task(index: int) -> list[int]:
        return in_threads(lambda inner: 10 * index + inner, 5)

    assert in_threads(task, 3) == [[10 * index + inner for inner in range(5)] for index in range(3)]


def test_what_a_task_raises_comes_out(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda index: 1 // index, 3)
