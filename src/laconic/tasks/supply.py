"""Batches of any task, addressed by (epoch, step), so that a resumed run sees what an unbroken one would."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Generic, TypeVar

import numpy as np
import torch

from laconic.errors import ConfigError, DataError

B = TypeVar("B")


def moved(batch: B, device: torch.device) -> B:
    """A dataclass of tensors with all of them on a device."""
    return replace(batch, **{each.name: getattr(batch, each.name).to(device) for each in fields(batch)})  # type: ignore


@dataclass(frozen=True)
class Shuffled(Generic[B]):
    """Each epoch all rows in another order, an incomplete last batch dropped.

    Attributes:
        fetch: (rows, rng) -> batch; all that is random in a batch comes from rng, which follows from (seed, epoch,
            step, rank).
        rows: int64, what may be asked of `fetch`.
        size: rows per step, over all processes together.
        share: (rank, world): this process takes the rows rank, rank + world ... of each batch.
    """

    fetch: Callable[[np.ndarray, np.random.Generator], B]
    rows: np.ndarray
    size: int
    seed: int
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if len(self.rows) < max(1, self.size):
            raise DataError(
                f"{len(self.rows)} usable training examples are fewer than one batch of {self.size}: give more of "
                "them or a smaller training.batch"
            )

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.rows) // self.size

    def __call__(self, epoch: int, step: int) -> B:
        """The batch of one step, or this process's share of it."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)
        rank, world = self.share
        rows = order[step * self.size + rank : (step + 1) * self.size : world]
        return self.fetch(rows, np.random.default_rng((self.seed, epoch, step, rank)))

    def shared(self, rank: int, world: int) -> "Shuffled[B]":
        """The share of one of `world` processes. ConfigError where a batch has fewer rows than processes."""
        if world > self.size:
            raise ConfigError(
                f"training.batch {self.size} cannot be shared by {world} processes; give at least {world}"
            )
        return replace(self, share=(rank, world))
