"""What the training loop is given: batches, an objective, what prunes meanwhile, and who is told of the progress."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever shows it."""

    step: int
    steps: int
    epoch: int
    loss: float
    facts: Mapping[str, float]  # learning rate, sparsity, latest scores ...
    score: tuple[str, float] | None = None  # that by which the best checkpoint is picked, times 100


@dataclass(frozen=True)
class Loss:
    """What an objective says of a batch.

    Attributes:
        mean: scalar with gradients, the mean over `tokens` tokens; a process weighs as much as it has tokens.
        facts: for the log.
    """

    mean: Tensor
    tokens: int
    facts: Mapping[str, float] = field(default_factory=dict)


Objective = Callable[[nn.Module, Any], Loss]
Validate = Callable[[nn.Module], dict[str, float]]
Show = Callable[[Progress], None]


class Supply(Protocol):
    """Batches addressed by (epoch, step), each with `to(device)`: laconic.training.batches, or those of a task."""

    def __len__(self) -> int:
        """Steps per epoch."""

    def __call__(self, epoch: int, step: int) -> Any:
        """The batch of one step."""

    def shared(self, rank: int, world: int) -> "Supply":
        """The share of one of several processes."""


class Masking(Protocol):
    """What prunes or quantises while a model trains: laconic's Pruner, its Quantizer, or UPop."""

    @property
    def near_target(self) -> bool:
        """Whether trimming now changes little."""

    def attach(self, optimizer: torch.optim.Optimizer) -> object:
        """Hooks into the optimizer's steps."""

    def trimmed(self) -> AbstractContextManager[None]:
        """Within it the model is as it will be shipped."""

    def statistics(self) -> dict[str, float]:
        """Numbers for the log."""

    def state_dict(self) -> dict[str, Any]:
        """To go on from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on."""
