"""What a pruning method is: a frozen value that decides, while the Pruner holds whatever lasts.

A new method is one frozen dataclass that inherits the answers it does not care about from Method.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from laconic.compress.masked.masks import FixedMask, Mask
from laconic.errors import PruningError

if TYPE_CHECKING:
    from laconic.compress.masked.pruner import Pruner


class Method:
    """A pruning method; the defaults are those of masks that never change.

    Attributes:
        needs_losses: `pruner.sense` is to be called with losses before the training.
        needs_ticket: its masks come from another model.
        moves_masks: what a masked part computes is not what it computes without the pruner.
    """

    needs_losses: ClassVar[bool] = False
    needs_ticket: ClassVar[bool] = False
    moves_masks: ClassVar[bool] = True

    def target(self, pruner: "Pruner") -> float:
        """Share of masked weights that end as zero, 0 <= s < 1."""
        raise NotImplementedError

    def mask(self, name: str, weight: Tensor) -> Mask:
        """A fresh mask for one weight."""
        return FixedMask(weight)

    def begin(self, pruner: "Pruner") -> None:
        """All masks are in place and nothing has been trained."""

    def attach(self, pruner: "Pruner", optimizer: torch.optim.Optimizer) -> None:
        """The Pruner is about to be hooked into `optimizer`; PruningError where the method cannot go with it."""

    def gate_optimizer(self, pruner: "Pruner", betas: tuple[float, float]) -> torch.optim.Optimizer | None:
        """Optimizer of learned masks."""
        return None

    def loss(self, pruner: "Pruner") -> Tensor | None:
        """Scalar that the masks add to the loss of a step, if any."""
        return None

    def add_gradient(self, pruner: "Pruner") -> None:
        """Adds the gradient of `loss` to the masks' gradients."""
        loss = self.loss(pruner)
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]

    def sense(self, pruner: "Pruner", losses: Iterable[Tensor]) -> None:
        """Prunes by the gradients of some losses before the training."""
        raise PruningError(f"{type(self).__name__} does not prune by gradients: leave pruner.sense() out")

    def update(self, pruner: "Pruner") -> None:
        """A training step is over: `pruner.steps_done` counts it."""

    def settled(self, pruner: "Pruner") -> bool:
        """Whether the masks stand still from now on."""
        return True

    def trim(self, pruner: "Pruner") -> None:
        """Brings the masks to the exact target, wherever the training stands."""

    def resume(self, pruner: "Pruner") -> None:
        """Model and Pruner have just been loaded from a checkpoint."""

    def statistics(self, pruner: "Pruner") -> dict[str, float]:
        """Numbers for a training log besides the sparsity."""
        return {}


def check_share(name: str, value: float) -> None:
    """Raises PruningError unless 0 <= value < 1."""
    if not 0.0 <= value < 1.0:
        raise PruningError(f"{name} {value} is not possible; give 0 <= {name} < 1")
