"""What a model sees of each image, by row: an encoder's features, a detector's, or pixels.

Features of a frozen encoder and pixels are computed once and kept on disk (`image_cache`). The folder's name is a
digest of encoder weights, preprocessing and images (names, sizes, times), so a stale cache is never used. A
RegionSource gives a detector's features from files, with nothing to compute. Knows nothing of captions or training.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from laconic.captioner.image_captioner import stack_regions
from laconic.config import digest
from laconic.data import Dataset, Skipped, readable
from laconic.data.regions import RegionStore
from laconic.errors import ConfigError, DataError
from laconic.models.encoders import normalize
from laconic.models.layers import Features
from laconic.spec.encoders import cells_of, channels_of, detects, normalization_of
from laconic.spec.model import EncoderConfig
from laconic.spec.pixels import images_at_once
from laconic.training.image_cache import Arrays, Column, Job, Progress, images_digest, open_rows

FORMAT = 1  # raise when preprocessing or layout changes


@dataclass(frozen=True)
class FeatureCache:
    """Memory-mapped features of a data set.

    Attributes:
        grid: float16 (views, images, positions, channels); view 1, if any, is the mirror image.
        pooled: float16 (views, images, channels).
        boxes: float32 (views, images, positions, 4) of a detector's regions; None for the cells of a grid.
        valid: bool (images,), false where a picture could not be read.
        skipped: those pictures.
    """

    grid: np.ndarray
    pooled: np.ndarray
    boxes: np.ndarray | None
    valid: np.ndarray
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.valid)

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Features:
        """Features of some images as float32 tensors; `mirrored` (rows,) picks the view of each."""
        view = 0 if mirrored is None else mirrored.astype(np.int64)
        grid, pooled = self.grid[view, rows], self.pooled[view, rows]
        boxes = None if self.boxes is None else torch.from_numpy(self.boxes[view, rows])
        return Features(torch.from_numpy(grid).float(), torch.from_numpy(pooled).float(), boxes)


@dataclass(frozen=True)
class RegionSource:
    """Region features of a data set's images, by row.

    Attributes:
        regions: where they are, by image id.
        ids: of the images.
        valid: bool (images,), false where there are none for an image, or damaged ones.
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
        valid, skipped = np.ones(len(ids), bool), []
        for row, image in enumerate(ids):
            try:
                if image not in regions:
                    raise DataError(f"{image}: no region features")
                regions.check(image)
            except DataError as error:
                valid[row] = False
                skipped.append(Skipped(str(image), str(error)))
        return cls(regions, ids, valid, tuple(skipped))

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Features:
        """Features of some images; DataError where they are damaged, ConfigError where they are to be mirrored."""
        if mirrored is not None:
            raise ConfigError("region features cannot be mirrored; set training.mirror = false")
        return stack_regions([self.regions[self.ids[row]] for row in rows])


@dataclass(frozen=True)
class PixelCache:
    """Pixels of a data set, for an encoder that learns.

    Attributes:
        pixels: uint8 (images, size, size, 3).
        valid: bool (images,), false where a picture could not be read.
        skipped: those pictures.
    """

    pixels: np.ndarray
    valid: np.ndarray
    skipped: tuple[Skipped, ...]

    @classmethod
    def read(cls, examples: Dataset, size: int) -> "PixelCache":
        """In memory, without a file: for sets that are small, or generated."""
        pixels = np.zeros((len(examples), size, size, 3), np.uint8)
        valid = np.zeros(len(examples), bool)
        skipped: list[Skipped] = []
        for row, image in readable(examples, size, skipped):
            pixels[row], valid[row] = image, True
        return cls(pixels, valid, tuple(skipped))

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Tensor:
        """uint8 (rows, size, size, 3); `mirrored` (rows,) flips some left to right."""
        images = np.asarray(self.pixels[rows])  # picking rows has copied them
        if mirrored is not None:
            images[mirrored] = images[mirrored, :, ::-1]
        return torch.from_numpy(images)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names and values of a module's parameters and buffers; zeros have no sign, as in packed files."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensor.detach().cpu().numpy() + 0).data)
    return total.hexdigest()


def cache_key(encoder: nn.Module, config: EncoderConfig, examples: Dataset, mirror: bool) -> str:
    """Changes with the encoder's weights, the preprocessing, and the images."""
    seen = {"name": config.name, "size": config.size, "stride": config.stride, "norm": config.norm}
    if detects(config):
        seen["regions"] = config.regions
    return digest(FORMAT, weights_digest(encoder), seen, images_digest(examples), mirror, torch.__version__)


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
        TrainingError: where the disk is too small, or the cache cannot be written or is damaged.
    """
    views = 2 if mirror else 1
    device = next(encoder.parameters()).device
    encoder.eval()

    def write(arrays: Arrays, rows: list[int], pixels: np.ndarray) -> None:
        count = images_at_once(config.size, len(rows))
        for start in range(0, len(rows), count):
            with torch.inference_mode():
                some = torch.from_numpy(pixels[start : start + count]).to(device)
                images = normalize(some, normalization_of(config))
                for view in range(views):
                    features = encoder(images.flip(3) if view else images)
                    for name in columns:
                        arrays[name][view, rows[start : start + count]] = getattr(features, name).cpu().numpy()

    columns = feature_columns(config, len(examples), views)
    key = cache_key(encoder, config, examples, mirror)
    cached = open_rows(folder / key, Job(examples, config.size, columns, write, progress))
    arrays = cached.arrays
    return FeatureCache(arrays["grid"], arrays["pooled"], arrays.get("boxes"), cached.valid, cached.skipped)


def feature_columns(config: EncoderConfig, images: int, views: int) -> dict[str, Column]:
    """The arrays of a FeatureCache, named as parts of Features."""
    (grid, pooled), positions = channels_of(config), cells_of(config)
    columns = {
        "grid": Column((views, images, positions, grid), np.float16),
        "pooled": Column((views, images, pooled), np.float16),
    }
    if detects(config):
        columns["boxes"] = Column((views, images, positions, 4), np.float32)
    return columns


def cache_pixels(examples: Dataset, size: int, folder: Path, progress: Progress | None = None) -> PixelCache:
    """Opens the pixels of these examples under `folder`, reading what is missing; raises as `cache_features`."""

    def write(arrays: Arrays, rows: list[int], pixels: np.ndarray) -> None:
        arrays["pixels"][rows] = pixels

    columns = {"pixels": Column((len(examples), size, size, 3), np.uint8)}
    key = digest(FORMAT, "pixels", size, images_digest(examples))
    cached = open_rows(folder / key, Job(examples, size, columns, write, progress))
    return PixelCache(cached.arrays["pixels"], cached.valid, cached.skipped)
