"""Arrays with a row for each image of a data set, computed once from its pictures and kept on disk.

They are memory-mapped, so a set larger than memory works. Filling them stops and resumes at any image; pictures that
cannot be read are listed, not fatal. Knows nothing of encoders: what goes into a row is the caller's.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from laconic.data import Dataset, Skipped, readable
from laconic.errors import DataError, TrainingError
from laconic.machine.files import npy_header, write_text

BATCH = 32  # images at a time, up to the usual size; of larger ones as many as take the same memory
USUAL_SIDE = 224
PIECE = 1 << 20  # bytes of zeros written at a time
FLUSH_EVERY = 512  # images between two resume points

Arrays = dict[str, np.memmap[Any, Any]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Column:
    """One array of a cache.

    Attributes:
        shape: of the whole array; `write` knows which axis counts the images.
        dtype: of its numbers.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Rows:
    """A finished cache: read-only arrays by name, valid (images,), and the pictures that could not be read."""

    arrays: Mapping[str, np.ndarray]
    valid: np.ndarray
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Job:
    """How a cache is filled.

    Attributes:
        examples: the images.
        size: they are resized to size x size pixels.
        columns: the arrays.
        write: puts pixels uint8 (n, size, size, 3) of some rows into the arrays.
        progress: called with (images done, images).
    """

    examples: Dataset
    size: int
    columns: Mapping[str, Column]
    write: Callable[[Arrays, list[int], np.ndarray], None]
    progress: Progress | None = None

    @property
    def all_columns(self) -> dict[str, Column]:
        return {**self.columns, "valid": Column((len(self.examples),), np.bool_)}


def images_digest(examples: Dataset) -> str:
    """Changes with the images.

    Files count by name, size and time; pixels in memory and generated pictures by what they show, since two
    data sets number theirs alike. Nothing is drawn for it.
    """
    images = hashlib.sha256()
    for index in range(len(examples)):
        example = examples[index]
        images.update(f"{example.id}\0{example.name}\0".encode())
        if isinstance(example.image, Path):
            try:
                status = example.image.stat()
                images.update(f"{status.st_size} {status.st_mtime_ns}".encode())
            except OSError:
                images.update(b"missing")
        elif isinstance(example.image, np.ndarray):
            images.update(np.ascontiguousarray(example.image).data)
        else:
            images.update(example.image.identity.encode())
    return images.hexdigest()


def open_rows(where: Path, job: Job) -> Rows:
    """Opens the cache in folder `where`, computing what is missing. One that is complete need not be writable.

    Raises:
        DataError: no images.
        TrainingError: where disk or memory are too small, or the cache cannot be written or is damaged.
    """
    if not len(job.examples):
        raise DataError(f"{where}: there are no images to read; give a data set that has some")
    try:
        state = _read_state(where)
        if state is None or state["done"] < len(job.examples):
            where.mkdir(parents=True, exist_ok=True)
            with FileLock(where / "lock"):  # a second run on the same images waits for the first
                state = _read_state(where) or {"done": 0, "skipped": []}
                if state["done"] < len(job.examples):
                    _fill(where, job, state)
            state = _read_state(where)
    except OSError as error:
        raise TrainingError(
            f"{where}: the cache cannot be written ({error}); free the disk or give --cache another folder"
        ) from error
    skipped = tuple(Skipped(*entry) for entry in state["skipped"])  # type: ignore[index]
    try:
        arrays = {name: np.load(where / f"{name}.npy", mmap_mode="r") for name in job.all_columns}
        for name, column in job.all_columns.items():
            if (arrays[name].shape, arrays[name].dtype) != (column.shape, column.dtype):
                raise ValueError(f"{name}.npy is {arrays[name].dtype} {arrays[name].shape}")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(where, error) from None
    return Rows(arrays, np.asarray(arrays.pop("valid")), skipped)


def _fill(where: Path, job: Job, state: dict[str, Any]) -> None:
    fresh, count = state["done"] == 0, len(job.examples)
    if fresh:
        _reserve(where, job)
    try:
        arrays = {name: _open(where / f"{name}.npy") for name in job.all_columns}
    except (ValueError, EOFError) as error:
        raise _damaged(where, error) from None
    skipped = [Skipped(*entry) for entry in state["skipped"]]
    flushed = state["done"]
    pictures = readable(job.examples, job.size, skipped, range(state["done"], count))
    for rows, pixels in _batches(pictures, max(1, BATCH * USUAL_SIDE**2 // max(job.size, USUAL_SIDE) ** 2)):
        _refuse_passing(where, skipped)
        job.write(arrays, rows, pixels)
        arrays["valid"][rows] = True
        done = rows[-1] + 1
        if done - flushed >= FLUSH_EVERY:
            _flush(arrays, where, done, skipped)
            flushed = done
        if job.progress:
            job.progress(done, count)
    _refuse_passing(where, skipped)
    _flush(arrays, where, count, skipped)
    if job.progress:
        job.progress(count, count)


def _refuse_passing(where: Path, skipped: list[Skipped]) -> None:
    """TrainingError for an image that another try may read: the cache would go without it for good."""
    for image in skipped:
        if image.passing:
            raise TrainingError(f"{image.reason}; {where} keeps what is done, so run it again")


def _batches(pictures: Iterator[tuple[int, np.ndarray]], most: int) -> Iterator[tuple[list[int], np.ndarray]]:
    rows: list[int] = []
    images: list[np.ndarray] = []
    for row, image in pictures:
        rows.append(row)
        images.append(image)
        if len(rows) == most:
            yield rows, np.stack(images)
            rows, images = [], []
    if rows:
        yield rows, np.stack(images)


def _open(path: Path) -> np.memmap[Any, Any]:
    np.load(path, mmap_mode="r")  # refuses a file cut short, which r+ would fill up with zeros
    return np.lib.format.open_memmap(path, "r+")  # type: ignore[no-any-return]


def _flush(arrays: Arrays, where: Path, done: int, skipped: list[Skipped]) -> None:
    for array in arrays.values():
        array.flush()
    entries = [(s.name, s.reason) for s in skipped]
    write_text(where / "state.json", json.dumps({"done": done, "skipped": entries}))


def _read_state(where: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((where / "state.json").read_text(encoding="utf8"))
        return {"done": int(state["done"]), "skipped": [(n, r) for n, r in state["skipped"]]}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(where, error) from None


def _damaged(where: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{where}: damaged cache ({error!r}); delete the folder")


def _reserve(where: Path, job: Job) -> None:
    """Makes the files with all their space on the disk: a memory map that finds it full ends the process by a signal.

    Raises TrainingError, with nothing left behind, where there is too little.
    """
    made: list[Path] = []
    try:
        for name, column in job.all_columns.items():
            made.append(where / f"{name}.npy")
            np.lib.format.open_memmap(made[-1], "w+", column.dtype, column.shape)
            _allocate(made[-1])
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        needed = sum(column.bytes for column in job.all_columns.values())
        raise TrainingError(
            f"{where}: the cache needs {needed / 1e9:.1f} GB ({error.strerror}; "
            f"{shutil.disk_usage(where).free / 1e9:.1f} GB are free); free the disk or give --cache another folder"
        ) from error


def _allocate(path: Path) -> None:
    """Has the file system find room for the whole file; what stands in it stays."""
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # a system without it
            _write_zeros(file, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system without it
                raise
            _write_zeros(file, size)


def _write_zeros(file: BinaryIO, size: int) -> None:
    """Fills a `.npy` file of zeros up with zeros that take room."""
    npy_header(file)
    for start in range(file.tell(), size, PIECE):
        file.write(bytes(min(PIECE, size - start)))
    file.flush()
    os.fsync(file.fileno())
