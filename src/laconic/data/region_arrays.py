"""Region features of one image, and their boxes: arrays in `.npy` and `.npz` files, which are taken as hostile."""

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from laconic.errors import DataError, printable
from laconic.machine.files import npy_header

FEATURES, BOXES = "cocobu_att", "cocobu_box_relative"  # folders, as the bottom-up features of COCO are distributed
MAX_REGIONS = 1024  # of one image; detectors give 10 to 100, a fine grid some hundreds; relations take its square
KINDS = (".npy", ".npz")  # suffixes of one image's features; the first is read where there are both
ENTRY = "feat"  # of a .npz file
LARGEST = float(np.finfo(np.float16).max)
OVERHANG = 0.05  # by which a detector's box may leave the image

MAX_ENTRIES = 64  # of a .npz file
_ENTRY_MARK = b"PK\1\2"  # begins each row of a zip file's table
_BESIDE = 2**20  # bytes of a .npz file for what else it holds

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of one image.

    features  float32 or float16 of shape (n, channels), n at least 1
    boxes     float32 of shape (n, 4): x1, y1, x2, y2 relative to the image (0..1), if known
    """

    features: NDArray[Any]
    boxes: NDArray[np.float32] | None = None


def read_regions(path: str | os.PathLike[str], channels: int, boxes: Path | None = None) -> Regions:
    """Read one image's regions from a `.npy` file or the entry `feat` of a `.npz` file, and their boxes from another.

    Raises DataError: not there, not such a file of floats, no or more than MAX_REGIONS regions, not
    `channels` wide, not finite; boxes of another number, or not relative to the image.
    """
    features = _read_array(Path(path), channels)
    if boxes is None:
        return Regions(features)
    return Regions(features, read_boxes(boxes, len(features)))


def read_boxes(path: Path, count: int) -> NDArray[np.float32]:
    """Boxes of `count` regions, (count, 4). Raises DataError as read_regions."""
    return checked_boxes(_read_array(path, 4), count, printable(path))


def count_regions(path: Path, channels: int) -> int:
    """How many regions a file of features holds; DataError where its header or length is not right."""
    return _from_file(path, channels, lambda _, rows: rows)


def boxes_beside(path: Path) -> Path | None:
    """The file of boxes that goes with a file of features in a RegionFolder, where there is one."""
    boxes = path.parent.parent / BOXES / f"{path.stem}.npy"
    return boxes if path.parent.name == FEATURES and boxes.is_file() else None


def features_in(folder: Path) -> dict[str, Path]:
    """The file of each image's features by its id, sorted as text."""
    found = {path.stem: path for kind in reversed(KINDS) for path in folder.glob(f"*{kind}")}
    return {image: found[image] for image in sorted(found)}


def _read_array(path: Path, width: int) -> NDArray[np.float32]:
    """A finite float32 array (n, width) from a file; its header is checked before memory is taken."""
    array: NDArray[Any] = _from_file(path, width, lambda file, _: npy.read_array(file, allow_pickle=False))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32)
    if not (np.abs(values) <= LARGEST).all():  # false for NaN
        raise DataError(
            f"{printable(path)}: holds values that are not finite, or beyond float16; compute it again or leave it out"
        )
    return values


def _from_file(path: Path, width: int, read: Callable[[IO[bytes], int], T]) -> T:
    """What `read` makes of an array whose header is sound, and of its number of rows."""
    name = printable(path)
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise DataError("no such file")
        with _opened(path, width) as (file, size):
            return read(file, _rows(file, size, width))
    except DataError as error:
        raise DataError(f"{name}: {error}; give region features, float (n, {width})") from None
    except MemoryError as error:
        raise DataError(f"{name}: too little memory is free to read it; close other programs") from error
    except Exception as error:  # headers of hostile bytes raise anything: ValueError, RecursionError, TypeError ...
        what = printable(error)
        raise DataError(f"{name}: truncated or damaged ({what}); copy it again or leave it out") from error


@contextmanager
def _opened(path: Path, width: int) -> Iterator[tuple[IO[bytes], int]]:
    """A `.npy` file, or the one within a `.npz` file, and its bytes."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if path.suffix != ".npz":
            yield file, size
            return
        if size > 16 * MAX_REGIONS * width + _BESIDE:
            raise DataError(f"{size:,} bytes, more than the regions of one image")
        data = file.read()
        if data.count(_ENTRY_MARK) > MAX_ENTRIES:  # each would take some hundred bytes of memory
            raise DataError(f"more than {MAX_ENTRIES} arrays in it")
        with zipfile.ZipFile(BytesIO(data)) as archive:
            names = archive.namelist()
            if f"{ENTRY}.npy" not in names:
                held = ", ".join(name.removesuffix(".npy") for name in names[:3])
                raise DataError(f"no array {ENTRY!r} in it, only {printable(held)[:60] or 'nothing'}")
            entry = archive.getinfo(f"{ENTRY}.npy")
            with archive.open(entry) as array:
                yield array, entry.file_size


def _rows(file: IO[bytes], size: int, width: int) -> int:
    """Rows of a float array of `width` columns; refuses anything else, and leaves the file at its start."""
    if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise DataError("not a .npy file")
    file.seek(0)
    shape, dtype = npy_header(file)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"an array of {dtype}")
    if len(shape) != 2 or shape[1] != width or not 1 <= shape[0] <= MAX_REGIONS:
        raise DataError(f"an array of shape {shape}; there may be 1 to {MAX_REGIONS} regions")
    if size - file.tell() < shape[0] * width * dtype.itemsize:
        raise ValueError("its end is missing")
    file.seek(0)
    return int(shape[0])


def checked_boxes(boxes: NDArray[np.float32], count: int, where: str) -> NDArray[np.float32]:
    """The boxes, where they are relative corners of `count` regions; else a DataError at `where`."""
    if boxes.shape != (count, 4):
        raise DataError(f"{where}: boxes of shape {boxes.shape} for {count} regions")
    low, high = boxes[:, :2], boxes[:, 2:]
    sound = (low >= -OVERHANG).all() and (high <= 1 + OVERHANG).all() and (low <= high).all()  # false for NaN
    if not sound:
        raise DataError(f"{where}: boxes are not x1, y1, x2, y2 between 0 and 1; divide pixels by the image's size")
    return boxes
