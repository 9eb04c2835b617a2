"""Work shared by threads: for what leaves Python's lock to others, such as the kernels of the native library.

Imports torch only when work is shared: its number of threads is the one that is used.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

GRAIN = 1 << 18  # elements below which another thread does not pay

T = TypeVar("T")
_thread = threading.local()


def run(kernel: Callable[..., T], tensors: "Sequence[Tensor]", scalars: Sequence[Any] = ()) -> list[T]:
    """kernel(n, pointers..., scalars...) over contiguous tensors of n elements, in as many threads as PyTorch has: what
    each of them returned."""
    import torch

    count = tensors[0].numel()
    parts = max(1, min(torch.get_num_threads(), count // GRAIN))

    def part(index: int) -> T:
        start, stop = (count * i // parts for i in (index, index + 1))
        pointers = [t.data_ptr() + start * t.element_size() for t in tensors]
        return kernel(stop - start, *pointers, *scalars)

    return in_threads(part, parts)


def in_threads(task: Callable[[int], T], count: int) -> list[T]:
    """[task(0), ..., task(count - 1)] in as many threads as PyTorch has.

    Within a task all is done by its own thread.
    """
    import torch

    threads = 1 if getattr(_thread, "works", False) else torch.get_num_threads()
    if min(count, threads) <= 1:
        return [task(index) for index in range(count)]
    return list(_workers(threads).map(task, range(count)))


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "laconic-native", initializer=lambda: setattr(_thread, "works", True))
