"""What a process does with memory that it has freed. For programs, not for the library's functions.

Nothing is done where the C library is not GNU's.
"""

import contextlib
import ctypes
import platform

# <malloc.h> of the GNU C library
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
PAD = 64 * 2**20  # bytes by which the heap grows at a time
LARGE = 2**20  # bytes of a piece that is given back at once


def keep_memory() -> None:
    """Has the C library keep freed memory for the next tensor instead of giving it back to the system.

    A training step frees large tensors and asks for others at once. By default each of them comes fresh from the
    system, zeroed page by page (docs/LOG.md, Training speed). The process never shrinks thereafter.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: PAD})


def return_memory() -> None:
    """Has the C library give large pieces of memory back to the system as soon as they are freed.

    By default it keeps some, for each thread apart, once such pieces have been freed: what a few large images took
    would never be free again.
    """
    _set({M_MMAP_THRESHOLD: LARGE})


def _set(values: dict[int, int]) -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in values.items():
            libc.mallopt(parameter, value)
