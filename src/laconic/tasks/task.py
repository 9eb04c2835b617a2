"""What every task gives: the model, its batches, what it is to learn, how it is scored, and how it is kept.

Stages of a recipe (laconic.recipes.slimming) train, slim and retrain through this protocol alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.data import Skipped
from laconic.training.given import Supply


class TaskBatch(Protocol):
    """What one step learns from; only its task looks inside."""

    @property
    def count(self) -> int:
        """Examples; a process weighs as much as it has of them."""

    def to(self, device: torch.device) -> "TaskBatch":
        """The same on a device."""


class Task(Protocol):
    """A task over one model and its data.

    Attributes:
        selection: name of the score that picks the best checkpoint, among those that `validate` gives; higher is
            better.
        net: the model, a Hugging Face one or one of laconic.hf.
    """

    selection: str
    net: nn.Module

    @property
    def batches(self) -> Supply:
        """Of the training images."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """Images that cannot be read, and are left out."""

    def outputs(self, net: nn.Module, batch: Any) -> Tensor:
        """Logits (decisions, choices) with gradients; of a teacher, the same decisions."""

    def loss(self, outputs: Tensor, batch: Any) -> Tensor:
        """Scalar: the published loss of the task."""

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        """A module whose `forward(batch)` is the loss to train by, the teacher's share included; `Learner` for most."""

    def validate(self, net: nn.Module) -> dict[str, float]:
        """Scores on the validation set, in percent where they are shares; the net is in evaluation mode, and gradients
        are off."""

    def baselines(self) -> Mapping[str, float]:
        """What `selection` is without looking: {"chance": ..., "no image": ...}, in its unit."""

    def example(self) -> dict[str, Tensor]:
        """What `net(**example)` takes for one example as in use: costs and latency are counted on it."""

    def save(self, net: nn.Module, folder: Path) -> None:
        """Writes an ordinary Hugging Face folder: weights, config.json, tokenizer and image processor."""


class Learner(nn.Module):
    """A model with its task's loss, and its teacher's where it has one (Hinton et al. 2015).

    Args:
        net: what learns; its parameters are `net.*`.
        task: whose outputs and loss.
        teacher: the dense model; frozen, and left out of the state.
        weight: share of the teacher in the loss, 0 to 1.
        temperature: divides the logits of both.
    """

    def __init__(
        self,
        net: nn.Module,
        task: Task,
        teacher: nn.Module | None = None,
        weight: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.net = net
        self._task, self._weight, self._temperature = task, weight, temperature
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]  # a list hides it from state

    def forward(self, batch: Any) -> Tensor:
        """Scalar loss of a batch."""
        outputs = self._task.outputs(self.net, batch)
        loss = self._task.loss(outputs, batch)
        taught = self.taught(batch)
        return loss if taught is None else self.shared(loss, divergence(outputs, taught, self._temperature))

    def taught(self, batch: Any) -> Tensor | None:
        """The teacher's outputs; None without one."""
        if not self._teacher:
            return None
        with torch.no_grad():
            return self._task.outputs(self._teacher[0], batch)

    def shared(self, loss: Tensor, distance: Tensor) -> Tensor:
        """The loss with the distance from the teacher in its share."""
        return (1 - self._weight) * loss + self._weight * distance


def divergence(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Mean KL divergence of the student from the teacher, times the temperature's square."""
    student = F.log_softmax(outputs.float() / temperature, -1)
    teacher = F.log_softmax(taught.float() / temperature, -1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2
