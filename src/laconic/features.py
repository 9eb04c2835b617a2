"""Feature cache: what a frozen encoder sees of a data set, computed once and kept on disk.

Arrays are float16 and memory-mapped, so a set larger than memory works. The folder's name is a digest of encoder
weights, preprocessing and images (names, sizes, times), so a stale cache is never used. Extraction stops and resumes
at any image; pictures that cannot be read are listed, not fatal. Knows nothing of captions or training.

A RegionSource gives a detector's features from files in the same way, with nothing to compute.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from laconic.captioner import EncoderConfig, normalize, stack_regions
from laconic.config import digest
from laconic.data import Dataset, Skipped, readable
from laconic.data.regions import RegionStore
from laconic.errors import ConfigError, TrainingError
from laconic.files import write_text
from laconic.models.layers import Features

FORMAT = 1  # raise when preprocessing or layout changes
BATCH = 32
FLUSH_EVERY = 512  # images between two resume points

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FeatureCache:
    """Memory-mapped features of a data set.

    Attributes:
        grid: float16 (views, images, positions, channels); view 1, if any, is the mirror image.
        pooled: float16 (views, images, channels).
        valid: bool (images,), false where a picture could not be read.
        skipped: those pictures.
    """

    grid: np.ndarray
    pooled: np.ndarray
    valid: np.ndarray
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.valid)

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Features:
        """Features of some images as float32 tensors; `mirrored` (rows,) picks the view of each."""
        view = 0 if mirrored is None else mirrored.astype(np.int64)
        grid, pooled = self.grid[view, rows], self.pooled[view, rows]
        return Features(torch.from_numpy(grid).float(), torch.from_numpy(pooled).float())


@dataclass(frozen=True)
class RegionSource:
    """Region features of a data set's images, by row.

    Attributes:
        regions: where they are, by image id.
        ids: of the images.
        valid: bool (images,), false where there are none for an image.
        skipped: those images.
    """

    regions: RegionStore
    ids: tuple[int | str, ...]
    valid: np.ndarray
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(cls, examples: Dataset, regions: RegionStore) -> "RegionSource":
        """Looks every example up; no feature is read."""
        ids = tuple(examples[row].id for row in range(len(examples)))
        valid = np.array([image in regions for image in ids], bool)
        missing = (str(image) for image, there in zip(ids, valid, strict=True) if not there)
        return cls(regions, ids, valid, tuple(Skipped(image, f"{image}: no region features") for image in missing))

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Features:
        """Features of some images; DataError where they are damaged, ConfigError where they are to be mirrored."""
        if mirrored is not None:
            raise ConfigError("region features cannot be mirrored; set training.mirror = false")
        return stack_regions([self.regions[self.ids[row]] for row in rows])


def encoder_digest(encoder: nn.Module) -> str:
    """SHA-256 over names and values of an encoder's parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return total.hexdigest()


def cache_key(encoder: nn.Module, config: EncoderConfig, examples: Dataset, mirror: bool) -> str:
    """Changes with the encoder's weights, the preprocessing, and the images.

    Files count by name, size and time; pixels in memory and generated pictures by what they show, since two
    data sets number theirs alike.
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
        else:
            images.update(np.ascontiguousarray(example.pixels()).data)
    seen = {"name": config.name, "size": config.size, "stride": config.stride, "norm": config.norm}
    return digest(FORMAT, encoder_digest(encoder), seen, images.hexdigest(), mirror, torch.__version__)


def cache_features(
    encoder: nn.Module,
    config: EncoderConfig,
    examples: Dataset,
    folder: Path,
    *,
    mirror: bool = False,
    progress: Progress | None = None,
) -> FeatureCache:
    """Opens the cache of these examples under `folder`, computing what is missing.

    Args:
        encoder: frozen, in evaluation mode afterwards.
        config: its preprocessing.
        mirror: adds a second view, the image flipped left to right.
        progress: called with (images done, images).

    Raises:
        TrainingError: where the disk is too small or the cache cannot be written.
    """
    where = folder / cache_key(encoder, config, examples, mirror)
    shapes = feature_shapes(encoder, config, len(examples), 2 if mirror else 1)
    try:
        where.mkdir(parents=True, exist_ok=True)
        with FileLock(where / "lock"):  # a second run on the same images waits for the first
            state = _read_state(where)
            if state is None:
                _require_space(where, shapes)
                state = {"done": 0, "skipped": []}
            if state["done"] < len(examples):
                _extract(encoder, config, examples, where, shapes, state, progress)
    except OSError as error:
        raise TrainingError(
            f"{where}: feature cache cannot be written ({error}); free the disk or give --cache another folder"
        ) from error
    skipped = tuple(Skipped(*entry) for entry in _read_state(where)["skipped"])  # type: ignore[index]
    try:
        arrays = {name: np.load(where / f"{name}.npy", mmap_mode="r") for name in shapes}
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(where, error) from None
    return FeatureCache(arrays["grid"], arrays["pooled"], np.asarray(arrays["valid"]), skipped)


def feature_shapes(encoder: nn.Module, config: EncoderConfig, images: int, views: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays on disk."""
    side = -(-config.size // config.stride)
    return {
        "grid": (views, images, side * side, encoder.grid_channels),  # type: ignore[dict-item]
        "pooled": (views, images, encoder.pooled_channels),  # type: ignore[dict-item]
        "valid": (images,),
    }


def _extract(
    encoder: nn.Module,
    config: EncoderConfig,
    examples: Dataset,
    where: Path,
    shapes: dict[str, tuple[int, ...]],
    state: dict[str, Any],
    progress: Progress | None,
) -> None:
    fresh = state["done"] == 0
    try:
        arrays = {name: _open(where / f"{name}.npy", shape, fresh) for name, shape in shapes.items()}
    except (ValueError, EOFError) as error:
        raise _damaged(where, error) from None
    encoder.eval()
    skipped = [Skipped(*entry) for entry in state["skipped"]]
    pictures = readable(examples, config.size, skipped, range(state["done"], len(examples)))
    flushed = state["done"]
    device = next(encoder.parameters()).device
    for rows, pixels in _batches(pictures):
        with torch.inference_mode():
            images = normalize(torch.from_numpy(pixels).to(device))
            for view in range(shapes["grid"][0]):
                features = encoder(images.flip(3) if view else images)
                arrays["grid"][view, rows] = features.grid.cpu().numpy()
                arrays["pooled"][view, rows] = features.pooled.cpu().numpy()
        arrays["valid"][rows] = True
        done = rows[-1] + 1
        if done - flushed >= FLUSH_EVERY:
            _flush(arrays, where, done, skipped)
            flushed = done
        if progress:
            progress(done, len(examples))
    _flush(arrays, where, len(examples), skipped)
    if progress:
        progress(len(examples), len(examples))


def _batches(pictures: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[list[int], np.ndarray]]:
    rows: list[int] = []
    images: list[np.ndarray] = []
    for row, image in pictures:
        rows.append(row)
        images.append(image)
        if len(rows) == BATCH:
            yield rows, np.stack(images)
            rows, images = [], []
    if rows:
        yield rows, np.stack(images)


def _open(path: Path, shape: tuple[int, ...], fresh: bool) -> np.memmap[Any, Any]:
    dtype = bool if len(shape) == 1 else np.float16
    mode = "w+" if fresh else "r+"
    if not fresh:
        np.load(path, mmap_mode="r")  # refuses a file cut short, which r+ would fill up with zeros
    return np.lib.format.open_memmap(path, mode, dtype, None if mode == "r+" else shape)  # type: ignore


def _flush(arrays: dict[str, np.memmap[Any, Any]], where: Path, done: int, skipped: list[Skipped]) -> None:
    for array in arrays.values():
        array.flush()
    entries = [(s.name, s.reason) for s in skipped]
    write_text(where / "state.json", json.dumps({"done": done, "skipped": entries}))


def _read_state(where: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((where / "state.json").read_text(encoding="utf8"))
        return {"done": int(state["done"]), "skipped": [(n, r) for n, r in state["skipped"]]}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(where, error) from None


def _damaged(where: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{where}: damaged feature cache ({error!r}); delete the folder")


def _require_space(where: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A memory-mapped file on a full disk ends the process with a bus error: refuse before."""
    needed = sum(2 * int(np.prod(shape)) for shape in shapes.values())
    free = shutil.disk_usage(where).free
    if needed > 0.98 * free:
        raise TrainingError(
            f"{where}: the feature cache needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "free the disk or give --cache another folder"
        )
