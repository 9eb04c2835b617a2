"""Files that are written whole or not at all, and what a `.npy` file claims to hold."""

import contextlib
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

NPY_HEADER = 10_000  # bytes; numpy itself takes no more for files that it does not trust


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, opened for writing, that takes its place when the block ends.

    The bytes are on the disk before that. Where anything is raised, within the block or by the disk, the file is
    removed and what was at `path` stays as it was. Raises OSError as `open` and `write` do.
    """
    temporary = path.with_name(path.name + ".tmp")  # always the same, so that kills leave at most one behind
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; OSError as `atomically`."""
    with atomically(path) as file:
        file.write(text.encode("utf8"))


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a `.npy` file claims, before memory is taken for them; the file is read from its start.

    Hostile bytes make numpy raise almost anything; ValueError where it is another file altogether, or its header is
    longer than NPY_HEADER, of which numpy would first read all.
    """
    magic = file.read(npy.MAGIC_LEN)
    version = npy.read_magic(BytesIO(magic))
    length = file.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > NPY_HEADER:
        raise ValueError(f"a header of {size:,} bytes")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(BytesIO(length + file.read(size)))
    return shape, dtype
