"""SNIP (Lee, Ajanthan, Torr 2019): prunes once, before training, by the effect each weight has on the loss.

Saliency of a weight is |dL/dc| at c = 1, c being its mask: |w dL/dw|, of a loss summed over some batches.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from laconic.compress.masked.method import Method, check_share
from laconic.compress.masked.ranking import keep_largest
from laconic.errors import PruningError

if TYPE_CHECKING:
    from laconic.compress.masked.pruner import Pruner


@dataclass(frozen=True)
class Snip(Method):
    """SNIP; call `pruner.sense(losses)` before the training.

    Attributes:
        sparsity: share to remove.
        signed: ranks the signed gradient over its sum, as the Supermask Pruning code does by mistake; for
            comparison with its published numbers only.
        batches: how many losses whoever drives the training gives to `sense`.
    """

    sparsity: float
    signed: bool = False
    batches: int = 1

    needs_losses: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        if self.batches < 1:
            raise PruningError(f"Snip: batches = {self.batches}; give at least one")

    def target(self, pruner: "Pruner") -> float:
        return self.sparsity

    def update(self, pruner: "Pruner") -> None:
        if not pruner.sensed:
            raise PruningError("Snip prunes by gradients: call pruner.sense(losses) before the training")

    trim = update

    def sense(self, pruner: "Pruner", losses: Iterable[Tensor]) -> None:
        """Masks by the saliency over `losses`, scalars that are asked for one at a time."""
        weights = pruner.raw()
        resting = [weight for weight in weights.values() if not weight.requires_grad]
        for weight in resting:  # a part that is pruned but not trained has its effect on the loss, too
            weight.requires_grad_()
        try:
            total = _saliencies(weights, losses)
        finally:
            for weight in resting:
                weight.requires_grad_(False)
        if self.signed:
            whole = torch.stack([part.sum() for part in total.values()]).sum()
            scores = {name: part / whole for name, part in total.items()}
        else:
            scores = {name: part.abs() for name, part in total.items()}
        pruner.set_masks(keep_largest(scores, self.sparsity))


def _saliencies(weights: Mapping[str, Tensor], losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """w dL/dw of each weight, summed over the losses."""
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    batches = 0
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                total[name] += gradient * weight.detach()
        batches += 1
    if not batches:
        raise PruningError("Snip got no losses; give at least one batch")
    return total
