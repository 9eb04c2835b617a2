"""What a vision tower reads of each image: normalised pixels, or a grid of frozen features as pixels of many channels.

A small Transformer learns little about seeing from a few thousand photos. With `model.encoder` the features of one of
laconic's encoders stand in the place of pixels, one cell a patch, computed once and cached.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from laconic.config import expand
from laconic.data import Dataset, Skipped
from laconic.errors import ConfigError, LaconicWarning, printable
from laconic.hf.pixels import read_normalization
from laconic.models.encoders import build_encoder, load_imagenet, normalize
from laconic.models.layers import Features
from laconic.spec.encoders import ENCODERS, channels_of, check_encoder, detects
from laconic.spec.model import EncoderConfig
from laconic.spec.pixels import Normalization
from laconic.tasks.settings import ModelRecipe
from laconic.training.batches import Source
from laconic.training.features import cache_features, cache_pixels
from laconic.training.image_cache import Progress

USUAL = Normalization()  # of a fresh tower that reads pixels, and of a folder that tells no other


@dataclass(frozen=True)
class Shape:
    """What a vision tower's configuration calls num_channels, image_size and patch_size."""

    channels: int
    side: int
    patch: int

    @classmethod
    def of(cls, model: ModelRecipe) -> "Shape":
        """Of the images that a recipe gives; ConfigError for what no encoder gives."""
        if not model.encoder:
            return cls(3, model.image, model.patch)
        return cls(channels_of(_encoder_of(model)).grid, -(-model.image // model.stride), 1)

    def __str__(self) -> str:
        return f"{self.channels} channels of {self.side} x {self.side} in patches of {self.patch} x {self.patch}"


@dataclass(frozen=True)
class Images:
    """Images of a data set by row: cached features or pixels.

    Attributes:
        source: where they come from.
        shape: of what the tower reads.
        pixels: how they are normalised, where they are no features.
    """

    source: Source
    shape: Shape
    pixels: Normalization = USUAL

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Those that cannot be read."""
        return self.source.skipped

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Tensor:
        """float32 (rows, channels, side, side); `mirrored` (rows,) bool flips some left to right."""
        found = self.source.batch(rows, mirrored)
        if isinstance(found, Features):
            grid: Tensor = found.grid.transpose(1, 2).unflatten(2, (self.shape.side, self.shape.side))
            return grid.contiguous()
        return normalize(found, self.pixels)


def open_images(
    examples: Dataset, model: ModelRecipe, cache: Path, *, mirror: bool = False, progress: Progress | None = None
) -> Images:
    """Opens the cached images of these examples, making what is missing.

    Args:
        mirror: they will be asked for mirrored ones.
        progress: called with (images done, images).
    """
    if not model.encoder:
        return Images(cache_pixels(examples, model.image, cache, progress), Shape.of(model), _pixels_of(model))
    config = _encoder_of(model)
    encoder = build_encoder(config)
    load_imagenet(encoder, expand(model.imagenet))
    source = cache_features(encoder, config, examples, cache, mirror=mirror, progress=progress)
    return Images(source, Shape.of(model))


def _pixels_of(model: ModelRecipe) -> Normalization:
    """As the folder's own image processor does; ours where there is no folder, or it holds none, which is said."""
    if not model.initial:
        return USUAL
    found = read_normalization(expand(model.initial))
    if found is None:
        warnings.warn(
            f"{printable(model.initial)}: holds no preprocessor_config.json, so pixels are mapped to -1..1; save the "
            "model's image processor there if it was trained on others",
            LaconicWarning,
            stacklevel=2,
        )
    return found or USUAL


def _encoder_of(model: ModelRecipe) -> EncoderConfig:
    if model.encoder not in ENCODERS:
        raise ConfigError(f"model.encoder = {model.encoder!r}; choose one of {', '.join(ENCODERS)}, or none for pixels")
    if not model.imagenet:
        raise ConfigError(f"model.encoder = {model.encoder!r} stays frozen: give its weights as model.imagenet")
    config = EncoderConfig(model.encoder, model.image, model.stride)
    if detects(config):
        raise ConfigError(f"model.encoder = {model.encoder!r} gives regions, and this reads a grid; choose another")
    check_encoder(config)
    return config
