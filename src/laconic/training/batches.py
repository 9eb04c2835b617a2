"""Training batches: images or their cached features, with captions of each image.

The order of an epoch, the mirroring of each image and the choice of its captions follow from (seed, epoch) alone, so a
resumed run sees exactly what an unbroken one would. Knows nothing of models or losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from laconic.data import Skipped
from laconic.errors import ConfigError, DataError
from laconic.models.layers import Features
from laconic.text import PAD, Vocabulary, pad_groups


class Source(Protocol):
    """Inputs of a model by row: see laconic.training.features."""

    @property
    def valid(self) -> np.ndarray: ...

    @property
    def skipped(self) -> tuple[Skipped, ...]: ...

    def batch(self, rows: np.ndarray, mirrored: np.ndarray | None = None) -> Tensor | Features: ...


@dataclass(frozen=True)
class Batch:
    """What one step learns from.

    Attributes:
        inputs: of n images, uint8 (n, size, size, 3) or Features.
        tokens: int64 (n, captions, longest), <bos> first, padded with 0.
        rows: (n,) row of each image in the data set.
    """

    inputs: Tensor | Features
    tokens: Tensor
    rows: np.ndarray

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.inputs.to(device), self.tokens.to(device), self.rows)


@dataclass(frozen=True)
class Batches:
    """An endless supply of batches, addressed by (epoch, step).

    Attributes:
        source: inputs by row.
        tokens: int64 (images, captions, length), <bos> first, padded with 0; an image with fewer captions than the
            others has rows of padding, which count for nothing.
        rows: rows of source and tokens to train on.
        size: images per batch; an incomplete last batch is dropped.
        mirror: flips each image with probability one half.
        captions: of each image at a step, drawn anew in each epoch; 0: all.
        share: (rank, world): this process takes the images rank, rank + world ... of each batch.
    """

    source: Source
    tokens: np.ndarray
    rows: np.ndarray
    size: int
    seed: int
    mirror: bool = False
    captions: int = 0
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.rows) // self.size

    def __call__(self, epoch: int, step: int) -> Batch:
        """The batch of one step, or this process's share of it."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.rows)
        mirrored = rng.random(len(order)) < 0.5 if self.mirror else np.zeros(len(order), bool)
        rank, world = self.share
        part = slice(step * self.size + rank, (step + 1) * self.size, world)
        rows, mirrored = order[part], mirrored[part]
        tokens = self.tokens[rows]
        if 0 < self.captions < tokens.shape[1]:
            ranks = rng.random((len(order), tokens.shape[1]))[part]
            ranks[tokens[:, :, 0] == PAD] = 1.0  # where an image has fewer captions, padding comes last
            chosen = ranks.argsort(-1)[:, : self.captions]
            tokens = np.take_along_axis(tokens, chosen[:, :, None], 1)
        longest = int((tokens != 0).sum(-1).max())
        inputs = self.source.batch(rows, mirrored if self.mirror else None)
        return Batch(inputs, torch.from_numpy(tokens[:, :, :longest].astype(np.int64)), rows)

    def shared(self, rank: int, world: int) -> "Batches":
        """The share of one of `world` processes; together they see the same batches as one process alone.

        Raises:
            ConfigError: where a batch has fewer images than there are processes.
        """
        if world > self.size:
            raise ConfigError(
                f"training.batch {self.size} cannot be shared by {world} processes; give at least {world}"
            )
        return replace(self, share=(rank, world))


def make_batches(
    source: Source,
    captions: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    *,
    max_length: int,
    size: int,
    seed: int,
    mirror: bool = False,
    captions_each: int = 0,
) -> Batches:
    """Encodes the captions and leaves out images that are unreadable or have none.

    Raises:
        DataError: where fewer images than one batch are left.
    """
    usable = np.array([bool(some) for some in captions], dtype=bool) & source.valid
    rows = np.flatnonzero(usable)
    if len(rows) < max(1, size):
        raise DataError(
            f"{len(rows)} usable training images are fewer than one batch of {size}: "
            "give more images or a smaller training.batch"
        )
    encoded = [[vocabulary.encode(caption, max_length) for caption in some] for some in captions]
    return Batches(source, pad_groups(encoded).astype(np.int32), rows, size, seed, mirror, captions_each)
