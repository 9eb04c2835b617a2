"""C kernels, compiled on the machine they run on: for arithmetic that PyTorch passes over memory many times for.

The first use of a source has the machine's C compiler (`cc`, or what CC says) translate it for the very processor, in a
quarter of a second and into a folder that is deleted again. Where there is no compiler there is no kernel, so whoever
calls one also knows how to do without.
"""

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
# Tried in this order: whole 512-bit vectors, which compilers avoid for the sake of other code; whatever the processor
# has; what every such processor has.
TARGETS: tuple[tuple[str, ...], ...] = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ())
SECONDS = 60.0  # for a compiler that hangs
SHARE = 1 << 18  # elements below which another thread does not pay


@functools.cache
def compiled(source: Path) -> ctypes.CDLL | None:
    """The library made of a C source; None where it cannot be made or loaded here."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if not compiler or shutil.which(compiler[0]) is None:
        return None
    with tempfile.TemporaryDirectory(prefix="laconic-") as folder:
        target = Path(folder) / f"{source.stem}.so"
        for flags in TARGETS:
            command = [*compiler, *FLAGS, *flags, str(source), "-o", str(target), "-lm"]
            try:
                subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
                return ctypes.CDLL(str(target))
            except (OSError, subprocess.SubprocessError):
                continue
    return None


def run(
    library: ctypes.CDLL, kernel: str, tensors: tuple[Tensor, ...], numbers: tuple[float, ...] = (), result: Any = None
) -> list[Any]:
    """kernel(n, tensors..., numbers...) over contiguous tensors of one size, element by element, in as many threads as
    PyTorch has: what each of them returned, of the C type `result`."""
    count = tensors[0].numel()
    threads = max(1, min(torch.get_num_threads(), count // SHARE))
    function = getattr(library, kernel)
    function.restype = result
    last = [ctypes.c_float(number) for number in numbers]

    def part(index: int) -> Any:
        start, stop = (count * i // threads for i in (index, index + 1))
        first = [ctypes.c_void_p(t.data_ptr() + start * t.element_size()) for t in tensors]
        return function(ctypes.c_size_t(stop - start), *first, *last)

    return [part(0)] if threads == 1 else list(_workers(threads).map(part, range(threads)))


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="laconic-native")
