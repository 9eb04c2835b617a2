"""Files that are written whole or not at all, and what a `.npy` file claims to hold."""

import contextlib
import errno
import functools
import os
import re
import secrets
import stat
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

try:
    import fcntl
except ImportError:  # Windows; what a kill leaves behind stays there
    fcntl = None  # type: ignore[assignment]

NAME_BYTES = 200  # of a file's name, taken into that of its temporary file: a name may have 255

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp", re.DOTALL)
NPY_HEADER = 10_000  # bytes; numpy itself takes no more for files that it does not trust


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path`, opened for writing, that takes its place when the block ends.

    The bytes are on the disk before that. Where anything is raised, within the block or by the disk, the file is
    removed and what was at `path` stays as it was. Several processes may write the same path: the last one's file is
    there in the end, whole. An old file's permissions are kept; of a link, the file that it names is replaced. What is
    no regular file (a pipe, a device, /dev/stdout) cannot be replaced and is written into. Raises OSError as `open` and
    `write` do.
    """
    if not replaceable(path):
        number = _stream_number(path)
        try:
            with open(path if number is None else os.dup(number), "wb") as file:
                yield file
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        return
    target = Path(os.path.realpath(path))
    _sweep(target)
    with _beside(target, str(path)) as (file, temporary):
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, target)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; OSError as `atomically`."""
    with atomically(path) as file:
        file.write(text.encode("utf8"))


def replaceable(path: Path) -> bool:
    """Whether a path is that of a regular file, or of nothing yet: no pipe, device or such as /dev/stdout."""
    if _stream_number(path) is not None:
        return False
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)  # the latter is refused, with the system's words


def _stream_number(path: Path) -> int | None:
    """The number of what the process has open already: opening it by its name would begin at its start again."""
    place = os.path.abspath(path)
    named = re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", place)
    return int(named[1]) if named else {"/dev/stdout": 1, "/dev/stderr": 2}.get(place)


@contextlib.contextmanager
def _beside(target: Path, asked: str) -> Iterator[tuple[BinaryIO, Path]]:
    """A new private file in the target's folder, with owner and permissions of the file that it will replace; removed
    where that does not come to pass. Errors name the path that was asked for."""
    old = target.stat() if target.exists() else None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), asked)
    temporary = target
    try:
        descriptor, temporary = _create(target, 0o666 if old is None else 0o600)  # of a new file, the umask decides
        with os.fdopen(descriptor, "wb") as file:
            if old is not None:
                with contextlib.suppress(OSError, AttributeError):  # not everybody's right, not every system's notion
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                with contextlib.suppress(OSError, AttributeError):
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) & 0o777)
            yield file, temporary
    except BaseException as error:
        if temporary != target:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if isinstance(error, OSError):  # the system names no file, or the temporary one
            named = os.path.basename(str(error.filename or ""))
            if not named or named.startswith(_stem(target)):
                error.filename, error.filename2 = asked, None
        raise


def _create(target: Path, mode: int) -> tuple[int, Path]:
    """Descriptor and path of a file that did not exist before, so that nobody else's is written and no link followed.

    As long as it is open it is locked, which tells `_sweep` that its writer lives.
    """
    while True:
        temporary = target.with_name(f"{_stem(target)}{secrets.token_hex(4)}.tmp")
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        except FileExistsError:
            continue
        locked(descriptor, wait=True)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(temporary), os.fstat(descriptor)):
                return descriptor, temporary
        os.close(descriptor)  # swept away before it was locked


def _sweep(target: Path) -> None:
    """Removes what writers of `target` that were killed have left: files of such names that nobody holds locked."""
    stem = _stem(target)
    for name in _leftovers(target.parent):
        if name[: -len("01234567.tmp")] != stem:
            continue
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            path = target.with_name(name)
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and locked(descriptor, wait=False):
                    os.unlink(path)
            finally:
                os.close(descriptor)


@functools.cache  # once a process: a folder may hold a hundred thousand files
def _leftovers(folder: Path) -> tuple[str, ...]:
    """Names of temporary files in a folder when this process first wrote there."""
    if fcntl is None:
        return ()
    try:
        with os.scandir(folder) as entries:
            return tuple(entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name))
    except OSError:
        return ()


def _stem(target: Path) -> str:
    """What the names of a target's temporary files begin with: hidden ones, whose ends everybody knows as temporary."""
    return f".{os.fsencode(target.name)[:NAME_BYTES].decode(errors='ignore')}."


def locked(descriptor: int, *, wait: bool) -> bool:
    """Whether a file or folder is now locked by this process; False where another holds it, or nothing can be
    locked. It is free again when the descriptor is closed, or the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (OSError, AttributeError):
        return False
    return True


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
