"""Region features of images: what a detector found, as files per image in a folder or one file for a whole set.

A folder is laid out as the bottom-up features of COCO are distributed: `cocobu_att/<id>.npy`, or the array `feat` of
`cocobu_att/<id>.npz`, (n, channels) and, where known, `cocobu_box_relative/<id>.npy` (n, 4). The one file is a legal
safetensors file and is memory-mapped, so a set larger than memory works. All files are taken as hostile. Knows nothing
of models or captions.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic.data.region_arrays import (
    BOXES,
    FEATURES,
    KINDS,
    MAX_REGIONS,
    Regions,
    boxes_beside,
    checked_boxes,
    count_regions,
    features_in,
    read_boxes,
    read_regions,
)
from laconic.errors import DataError, printable
from laconic.machine.files import atomically
from laconic.store import container

__all__ = [
    "BOXES",
    "FEATURES",
    "MAX_REGIONS",
    "NO_BOXES",
    "SET",
    "RegionFile",
    "RegionFolder",
    "RegionStore",
    "Regions",
    "batches",
    "boxes_beside",
    "open_regions",
    "read_regions",
    "region_readers",
    "write_regions",
]

NO_BOXES = f"give {BOXES}/<id>.npy, x1, y1, x2, y2 relative to the image, beside {FEATURES}/<id>.npy"
MAX_PAIRS = MAX_REGIONS**2  # of regions in a batch, padding included: relations take some 300 bytes for each
SET = ".safetensors"  # suffix of a RegionFile

_KIND = "regions"
_HEADER = 1024  # bytes kept free, so that features can be written before their number is known

K = TypeVar("K")


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
    """Name of each image at `path`, and what reads it: of a `.npy` or `.npz` file, a folder of them, or a RegionStore.

    Raises DataError: a folder without any, or as RegionFile.
    """
    if path.suffix == SET and path.is_file():
        held = RegionFile(path, channels)
        yield from ((image, partial(held.__getitem__, image)) for image in held.ids())
        return
    folder = path / FEATURES if (path / FEATURES).is_dir() else path
    files = list(features_in(folder).values()) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{printable(path)}: holds no region features ({', '.join(KINDS)})")
    for file in files:
        yield printable(file), partial(read_regions, file, channels, boxes_beside(file))


def batches(found: Iterable[tuple[K, Regions]], images: int) -> Iterator[list[tuple[K, Regions]]]:
    """Images in their order, at most `images` at once, and fewer where some have so many regions that their pairs would
    be more than MAX_PAIRS."""
    batch: list[tuple[K, Regions]] = []
    most = 0
    for key, regions in found:
        longest = max(most, len(regions.features))
        if batch and (len(batch) == images or (len(batch) + 1) * longest**2 > MAX_PAIRS):
            yield batch
            batch, longest = [], len(regions.features)
        batch.append((key, regions))
        most = longest
    if batch:
        yield batch


# Folders


@dataclass(frozen=True)
class RegionFolder:
    """Regions by image id from a folder of `.npy` and `.npz` files, laid out as above; `boxes` as in open_regions."""

    root: Path
    channels: int
    boxes: bool | None = None

    def __post_init__(self) -> None:
        if not (self.root / FEATURES).is_dir():
            raise DataError(
                f"{printable(self.root)}: no folder {FEATURES} in it; give the folder of {FEATURES}/<id>.npy"
            )

    def ids(self) -> Iterator[str]:
        """Ids of all images, sorted as text."""
        return iter(features_in(self.root / FEATURES))

    def __contains__(self, image: int | str, /) -> bool:
        return self._file_of(image) is not None

    def __getitem__(self, image: int | str, /) -> Regions:
        """DataError as read_regions, and for an id that is no file's name."""
        path = self._path(image)
        return read_regions(path, self.channels, self._boxes_of(path))

    def check(self, image: int | str, /) -> None:
        """DataError where its features' header or length, or its boxes, are not what they should be."""
        path = self._path(image)
        boxes, rows = self._boxes_of(path), count_regions(path, self.channels)
        if boxes is not None:
            read_boxes(boxes, rows)

    def _file_of(self, image: int | str) -> Path | None:
        for kind in KINDS:
            name = f"{image}{kind}"
            path = self.root / FEATURES / name
            if Path(name).name == name and "\0" not in name and path.is_file():
                return path
        return None

    def _path(self, image: int | str) -> Path:
        path = self._file_of(image)
        if path is None:
            where, kinds = printable(self.root / FEATURES), " or ".join(KINDS)
            raise DataError(f"{where}: no file {printable(image)[:60]} ({kinds}) in it")
        return path

    def _boxes_of(self, path: Path) -> Path | None:
        boxes = None if self.boxes is False else boxes_beside(path)
        if self.boxes and boxes is None:
            raise DataError(f"{printable(path)}: has no boxes; {NO_BOXES}")
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
                    boxes.append(checked_boxes(found.boxes.astype("<f4"), counts[-1], f"image {image!r:.60}"))
            if first is None:
                raise DataError("no image to write; give at least one")
            return _finish(file, first.features.shape[1], counts, boxes, "\n".join(ids))
    except DataError as error:
        raise DataError(f"{printable(path)}: not written, {error}") from None
    except OSError as error:
        raise DataError(
            f"{printable(path)}: cannot be written ({error.strerror}); check folder and free space"
        ) from error


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
            raise DataError(
                f"{printable(path)}: holds no regions; give a file that laconic.data.regions.write_regions wrote"
            )
        try:
            self._counts, ids = _check_parts(opened.parts)
        except ValueError as error:
            raise opened.damaged(error) from None
        self._features, self._boxes = opened.parts["features"], opened.parts.get("boxes")
        if boxes and self._boxes is None:
            raise DataError(f"{printable(path)}: has no boxes; {NO_BOXES}")
        if boxes is False:
            self._boxes = None
        if self._features.shape[1] != channels:
            raise DataError(f"{printable(path)}: regions are {self._features.shape[1]} wide, expected {channels}")
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
            raise DataError(f"{printable(self.path)}: no image {image!r:.60} in it")
        end = int(self._ends[row])
        return slice(end - int(self._counts[row]), end), f"{printable(self.path)}: image {image!r:.60}"

    def _boxes_of(self, rows: slice, where: str) -> NDArray[np.float32] | None:
        if self._boxes is None:
            return None
        return checked_boxes(self._boxes[rows], rows.stop - rows.start, where)


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
