"""How a process that trains uses its machine: threads and memory. For programs, not for the library's functions."""

import contextlib
import ctypes
import platform

from laconic.machine.cores import cores

# <malloc.h> of the GNU C library
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
PAD = 64 * 2**20  # bytes by which the heap grows at a time


def settle_in(threads: int = 0) -> None:
    """Sets PyTorch's number of threads as `bound_threads`, and makes the process keep the memory it frees."""
    bound_threads(threads)
    keep_memory()


def bound_threads(threads: int = 0) -> None:
    """Sets PyTorch's number of threads, 0 for its own choice, which the environment may have made.

    There are never more threads than `cores`: they would only wait for each other, and thousands bring the machine
    down or the process to its end.
    """
    import torch

    wanted = min(threads or torch.get_num_threads(), cores())
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)


def slow_in_bfloat16() -> bool:
    """Whether this processor has no instructions for bfloat16, and PyTorch's products in it are many times slower."""
    import torch

    try:
        return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def keep_memory() -> None:
    """Has the C library keep freed memory for the next tensor instead of giving it back to the system.

    A training step frees large tensors and asks for others at once. By default each of them comes fresh from the
    system, zeroed page by page (docs/LOG.md, Training speed). The process never shrinks thereafter. Does nothing where
    the C library is not GNU's.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        libc.mallopt(M_TOP_PAD, PAD)
