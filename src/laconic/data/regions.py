"""Region features of images: what a detector found, as `.npy` files per image or one file for a whole set.

A folder is laid out as the bottom-up features of COCO are distributed: `cocobu_att/<id>.npy` (n, channels) and, where
known, `cocobu_box_relative/<id>.npy` (n, 4). The one file is a legal safetensors file and is memory-mapped, so a set
larger than memory works. All files are taken as hostile. Knows nothing of models, batches or captions.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from laconic.errors import DataError
from laconic.machine.files import atomically, npy_header
from laconic.store import container

FEATURES, BOXES = "cocobu_att", "cocobu_box_relative"
MAX_REGIONS = 1024  # of one image; detectors give 10 to 100, a fine grid some hundreds; relations take its square
NO_BOXES = f"give {BOXES}/<id>.npy, x1, y1, x2, y2 relative to the image, beside {FEATURES}/<id>.npy"
SET = ".safetensors"  # suffix of a RegionFile
LARGEST = float(np.finfo(np.float16).max)
OVERHANG = 0.05  # by which a detector's box may leave the image

_KIND = "regions"
_HEADER = 1024  # bytes kept free, so that features can be written before their number is known


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of one image.

    features  float32 or float16 of shape (n, channels), n at least 1
    boxes     float32 of shape (n, 4): x1, y1, x2, y2 relative to the image (0..1), if known
    """

    features: NDArray[Any]
    boxes: NDArray[np.float32] | None = None


class RegionStore(Protocol):
    """Regions by image id: a RegionFolder or a RegionFile."""

    @property
    def channels(self) -> int: ...

    def ids(self) -> Iterator[str]: ...

    def __contains__(self, image: int | str, /) -> bool: ...

    def __getitem__(self, image: int | str, /) -> Regions: ...

    def check(self, image: int | str, /) -> None:
        """DataError where an image's regions are damaged, as far as a look tells that reads no features."""


def open_regions(path: Path, channels: int, boxes: bool | None = None) -> RegionStore:
    """The regions at `path`, a folder or one file, each `channels` wide. Raises DataError and FormatError.

    With `boxes` regions that lack them are an error; False leaves boxes out; None takes both as they are.
    """
    return RegionFolder(path, channels, boxes) if path.is_dir() else RegionFile(path, channels, boxes)


def region_readers(path: Path, channels: int) -> Iterator[tuple[str, Callable[[], Regions]]]:
    """Name of each image at `path`, and what reads it: of a `.npy` file, a folder of them, or a RegionStore.

    Raises DataError: a folder without any, or as RegionFile.
    """
    if path.suffix == SET and path.is_file():
        held = RegionFile(path, channels)
        yield from ((image, partial(held.__getitem__, image)) for image in held.ids())
        return
    folder = path / FEATURES if (path / FEATURES).is_dir() else path
    files = sorted(folder.glob("*.npy")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: holds no region features (.npy)")
    for file in files:
        yield str(file), partial(read_regions, file, channels, boxes_beside(file))


# One image


def read_regions(path: str | os.PathLike[str], channels: int, boxes: Path | None = None) -> Regions:
    """Read one image's regions from a `.npy` file, and their boxes from another.

    Raises DataError: not there, not a `.npy` file of floats, no or more than MAX_REGIONS regions, not
    `channels` wide, not finite; boxes of another number, or not relative to the image.
    """
    features = _read_array(Path(path), channels)
    if boxes is None:
        return Regions(features)
    return Regions(features, _checked_boxes(_read_array(boxes, 4), len(features), str(boxes)))


def boxes_beside(path: Path) -> Path | None:
    """The file of boxes that goes with a file of features in a RegionFolder, where there is one."""
    boxes = path.parent.parent / BOXES / path.name
    return boxes if path.parent.name == FEATURES and boxes.is_file() else None


def _read_array(path: Path, width: int) -> NDArray[np.float32]:
    """A finite float32 array (n, width) from a `.npy` file; its header is checked before memory is taken."""
    array: NDArray[Any] = _from_npy(path, width, lambda file, _: npy.read_array(file, allow_pickle=False))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32)
    if not (np.abs(values) <= LARGEST).all():  # false for NaN
        raise DataError(
            f"{path}: holds values that are not finite, or beyond float16; compute it again or leave it out"
        )
    return values


def _from_npy(path: Path, width: int, read: Callable[[BinaryIO, int], T]) -> T:
    """What `read` makes of a `.npy` file whose header is sound, and of its number of rows."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise DataError("no such file")
        with open(path, "rb") as file:
            return read(file, _rows(file, width))
    except DataError as error:
        raise DataError(f"{path}: {error}; give region features, float (n, {width})") from None
    except Exception as error:  # headers of hostile bytes raise anything: ValueError, RecursionError, TypeError ...
        raise DataError(f"{path}: truncated or damaged ({error}); copy it again or leave it out") from error


def _rows(file: BinaryIO, width: int) -> int:
    """Rows of a float array of `width` columns; refuses anything else, and leaves the file at its start."""
    if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise DataError("not a .npy file")
    file.seek(0)
    shape, dtype = npy_header(file)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"an array of {dtype}")
    if len(shape) != 2 or shape[1] != width or not 1 <= shape[0] <= MAX_REGIONS:
        raise DataError(f"an array of shape {shape}; there may be 1 to {MAX_REGIONS} regions")
    if os.fstat(file.fileno()).st_size - file.tell() < shape[0] * width * dtype.itemsize:
        raise ValueError("its end is missing")
    file.seek(0)
    return int(shape[0])


def _checked_boxes(boxes: NDArray[np.float32], count: int, where: str) -> NDArray[np.float32]:
    if boxes.shape != (count, 4):
        raise DataError(f"{where}: boxes of shape {boxes.shape} for {count} regions")
    low, high = boxes[:, :2], boxes[:, 2:]
    sound = (low >= -OVERHANG).all() and (high <= 1 + OVERHANG).all() and (low <= high).all()  # false for NaN
    if not sound:
        raise DataError(f"{where}: boxes are not x1, y1, x2, y2 between 0 and 1; divide pixels by the image's size")
    return boxes


# Folders


@dataclass(frozen=True)
class RegionFolder:
    """Regions by image id from a folder of `.npy` files, laid out as above; `boxes` as in open_regions."""

    root: Path
    channels: int
    boxes: bool | None = None

    def __post_init__(self) -> None:
        if not (self.root / FEATURES).is_dir():
            raise DataError(f"{self.root}: no folder {FEATURES} in it; give the folder of {FEATURES}/<id>.npy")

    def ids(self) -> Iterator[str]:
        """Ids of all images, sorted as text."""
        return (path.stem for path in sorted((self.root / FEATURES).glob("*.npy")))

    def __contains__(self, image: int | str, /) -> bool:
        name = f"{image}.npy"
        return Path(name).name == name and "\0" not in name and (self.root / FEATURES / name).is_file()

    def __getitem__(self, image: int | str, /) -> Regions:
        """DataError as read_regions, and for an id that is no file's name."""
        if image not in self:
            raise DataError(f"{self.root / FEATURES}: no file {image}.npy in it")
        path = self.root / FEATURES / f"{image}.npy"
        return read_regions(path, self.channels, self._boxes_of(path))

    def check(self, image: int | str, /) -> None:
        """DataError where its features' header or length, or its boxes, are not what they should be."""
        path = self.root / FEATURES / f"{image}.npy"
        boxes, rows = self._boxes_of(path), _from_npy(path, self.channels, lambda _, rows: rows)
        if boxes is not None:
            _checked_boxes(_read_array(boxes, 4), rows, str(boxes))

    def _boxes_of(self, path: Path) -> Path | None:
        boxes = None if self.boxes is False else boxes_beside(path)
        if self.boxes and boxes is None:
            raise DataError(f"{path}: has no boxes; {NO_BOXES}")
        return boxes


# One file


def write_regions(path: Path, regions: Iterable[tuple[int | str, Regions]]) -> int:
    """Write (id, regions) of many images into one file and return its bytes; features become float16.

    Images go to the disk one by one, so the set may be larger than memory; the file appears whole or not at all.
    Raises DataError: no image, an id twice, regions unlike the first image's in width or in having boxes,
    features that float16 cannot hold, a path that cannot be written.
    """
    ids: dict[str, None] = {}
    counts: list[int] = []
    boxes: list[NDArray[np.float32]] = []
    first: Regions | None = None
    try:
        with atomically(path) as file:
            file.write(b" " * (8 + _HEADER))
            for image, found in regions:
                first = first or found
                file.write(_half(image, found, first, ids))
                ids[str(image)] = None
                counts.append(len(found.features))
                if found.boxes is not None:
                    boxes.append(_checked_boxes(found.boxes.astype("<f4"), counts[-1], f"image {image!r:.60}"))
            if first is None:
                raise DataError("no image to write; give at least one")
            return _finish(file, first.features.shape[1], counts, boxes, "\n".join(ids))
    except DataError as error:
        raise DataError(f"{path}: not written, {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check folder and free space") from error


def _half(image: int | str, found: Regions, first: Regions, ids: dict[str, None]) -> bytes:
    """Features as float16, once everything about an image is known to be right."""
    shape, width = found.features.shape, first.features.shape[1]
    if str(image) in ids or not str(image).isprintable():
        raise DataError(f"the id {image!r:.60} is there twice or cannot be printed")
    if len(shape) != 2 or not 1 <= shape[0] <= MAX_REGIONS or shape[1] != width:
        raise DataError(f"image {image!r:.60}: features of shape {shape}, expected (1 to {MAX_REGIONS}, {width})")
    if (found.boxes is None) != (first.boxes is None):
        raise DataError(f"image {image!r:.60}: all images need boxes, or none")
    with np.errstate(over="ignore"):
        half = found.features.astype("<f2")
    if not np.isfinite(half).all():
        raise DataError(f"image {image!r:.60}: features are not finite, or beyond float16")
    return half.tobytes()


def _finish(file: BinaryIO, width: int, counts: list[int], boxes: list[NDArray[np.float32]], ids: str) -> int:
    """The smaller arrays behind the features, then the header in front; returns the bytes of the file."""
    total = sum(counts)
    header: dict[str, Any] = {
        "__metadata__": {"format": container.FORMAT, "version": str(container.VERSION), "kind": _KIND},
        "features": {"dtype": "F16", "shape": [total, width], "data_offsets": [0, 2 * total * width]},
    }
    parts = {"counts": np.array(counts, "<i4"), "ids": np.frombuffer(ids.encode(), np.uint8)}
    if boxes:
        parts["boxes"] = np.concatenate(boxes)
    end = 2 * total * width
    for name, part in parts.items():
        kind, start, end = container.DTYPE_NAMES[part.dtype], end, end + part.nbytes
        header[name] = {"dtype": kind, "shape": list(part.shape), "data_offsets": [start, end]}
        file.write(part.tobytes())
    file.seek(0)
    file.write(_HEADER.to_bytes(8, "little") + json.dumps(header).encode().ljust(_HEADER))
    return 8 + _HEADER + end


class RegionFile:
    """Regions by image id from the one memory-mapped file that `write_regions` wrote.

    Opening checks everything but features and boxes, which are checked when they are read. Raises FormatError for
    a file that is damaged or of another format, DataError for other contents, another width, and as open_regions.
    """

    def __init__(self, path: Path, channels: int, boxes: bool | None = None) -> None:
        opened = container.read(path)
        if opened.metadata.get("kind") != _KIND:
            raise DataError(f"{path}: holds no regions; give a file that laconic.data.regions.write_regions wrote")
        try:
            self._counts, ids = _check_parts(opened.parts)
        except ValueError as error:
            raise opened.damaged(error) from None
        self._features, self._boxes = opened.parts["features"], opened.parts.get("boxes")
        if boxes and self._boxes is None:
            raise DataError(f"{path}: has no boxes; {NO_BOXES}")
        if boxes is False:
            self._boxes = None
        if self._features.shape[1] != channels:
            raise DataError(f"{path}: regions are {self._features.shape[1]} wide, expected {channels}")
        self.path, self.channels = path, channels
        self._ends = np.cumsum(self._counts)
        self._row = {image: row for row, image in enumerate(ids)}

    def ids(self) -> Iterator[str]:
        """Ids of all images, in the order they were written."""
        return iter(self._row)

    def __contains__(self, image: int | str, /) -> bool:
        return str(image) in self._row

    def __getitem__(self, image: int | str, /) -> Regions:
        """Features as a float16 view of the file. DataError for an unknown id and for damaged values."""
        rows, where = self._place(image)
        features = self._features[rows]
        if not np.isfinite(features).all():
            raise DataError(f"{where}: features are not finite; write the file again")
        return Regions(features, self._boxes_of(rows, where))

    def check(self, image: int | str, /) -> None:
        """DataError where its boxes are not what they should be; the rest has been checked by opening."""
        self._boxes_of(*self._place(image))

    def _place(self, image: int | str) -> tuple[slice, str]:
        """An image's rows, and what to call it in a message."""
        row = self._row.get(str(image))
        if row is None:
            raise DataError(f"{self.path}: no image {image!r:.60} in it")
        end = int(self._ends[row])
        return slice(end - int(self._counts[row]), end), f"{self.path}: image {image!r:.60}"

    def _boxes_of(self, rows: slice, where: str) -> NDArray[np.float32] | None:
        if self._boxes is None:
            return None
        return _checked_boxes(self._boxes[rows], rows.stop - rows.start, where)


def _check_parts(parts: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int64], list[str]]:
    """Regions of each image, and ids. ValueError where the file contradicts itself."""
    kinds = {"features": ("<f2", 2), "counts": ("<i4", 1), "ids": ("u1", 1), "boxes": ("<f4", 2)}
    for name, part in parts.items():
        if kinds.get(name) != (part.dtype.str.lstrip("|"), part.ndim):
            raise ValueError(f"entry {name!r:.99} has no place in it, or another type")
    if not {"features", "counts", "ids"} <= parts.keys():
        raise ValueError("an entry is missing")
    counts = parts["counts"].astype(np.int64)
    total = parts["features"].shape[0]
    if ((counts < 1) | (counts > MAX_REGIONS)).any() or counts.sum() != total:
        raise ValueError(f"counts do not add up to {total} regions")
    if "boxes" in parts and parts["boxes"].shape != (total, 4):
        raise ValueError(f"boxes have shape {parts['boxes'].shape}")
    ids = parts["ids"].tobytes().decode().split("\n")
    if not len(counts) == len(ids) == len(set(ids)):
        raise ValueError(f"{len(ids)} ids for {len(counts)} images, or an id twice")
    if not all(map(str.isprintable, ids)):
        raise ValueError("an id that cannot be printed")
    return counts, ids
