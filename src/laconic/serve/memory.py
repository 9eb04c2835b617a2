"""How the process of a server uses memory. For programs, not for the library's functions."""

import contextlib
import ctypes
import platform

M_MMAP_THRESHOLD = -3  # <malloc.h> of the GNU C library
LARGE = 2**20  # bytes


def return_memory() -> None:
    """Has the C library give large pieces of memory back to the system as soon as they are freed.

    By default it keeps some, for each thread apart, once such pieces have been freed: what a few large images took
    would never be free again. Does nothing where the C library is not GNU's.
    """
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
