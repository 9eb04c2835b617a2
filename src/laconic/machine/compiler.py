"""C kernels, compiled on the machine they run on: for arithmetic that PyTorch passes over memory many times for.

The first use of a source has the machine's C compiler (`cc`, or what CC says) translate it for the very processor, in a
quarter of a second and into a folder that is deleted again. Where there is no compiler there is no kernel, so whoever
calls one also knows how to do without; CC=false does without everywhere. Needs no torch to compile.
"""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

FLAGS = "-O3", "-shared", "-fPIC", "-fno-trapping-math"
# Tried in this order: whole 512-bit vectors, which compilers avoid for the sake of other code; whatever the processor
# has; the same in the words of compilers for ARM. What every processor has would be slower than PyTorch.
TARGETS = ("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",)
SECONDS = 30.0  # for a compiler that hangs
GRAIN = 1 << 18  # elements below which another thread does not pay

T = TypeVar("T")
_thread = threading.local()


@functools.cache
def compiled(source: Path) -> ctypes.CDLL | None:
    """The library made of a C source; None where it cannot be made or loaded here."""
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        if not compiler or shutil.which(compiler[0]) is None:
            return None
        with tempfile.TemporaryDirectory(prefix="laconic-", ignore_cleanup_errors=True) as folder:
            return _built([*compiler, *FLAGS, str(source)], Path(folder) / f"{source.stem}.so")
    except (OSError, ValueError, subprocess.TimeoutExpired):  # no temporary folder, no command in CC, no end
        return None


def _built(command: Sequence[str], library: Path) -> ctypes.CDLL | None:
    for target in TARGETS:
        done = subprocess.run([*command, *target, "-o", str(library)], capture_output=True, timeout=SECONDS)
        if done.returncode == 0:
            try:
                return ctypes.CDLL(str(library))
            except OSError:  # made for another system, or nothing may be run from there
                continue
    return None


def run(
    library: ctypes.CDLL, kernel: str, tensors: "Sequence[Tensor]", scalars: Sequence[Any] = (), restype: Any = None
) -> list[Any]:
    """kernel(n, tensors..., scalars...) over contiguous tensors of n elements, in as many threads as PyTorch has: what
    each of them returned. Scalars and `restype` are of ctypes."""
    import torch

    count = tensors[0].numel()
    parts = max(1, min(torch.get_num_threads(), count // GRAIN))
    function = getattr(library, kernel)
    function.restype = restype

    def part(index: int) -> Any:
        start, stop = (count * i // parts for i in (index, index + 1))
        pointers = [ctypes.c_void_p(t.data_ptr() + start * t.element_size()) for t in tensors]
        return function(ctypes.c_size_t(stop - start), *pointers, *scalars)

    return in_threads(part, parts)


def in_threads(task: Callable[[int], T], count: int) -> list[T]:
    """[task(0), ..., task(count - 1)] in as many threads as PyTorch has: for what leaves Python's lock to others.

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
