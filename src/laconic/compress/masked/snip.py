"""SNIP (Lee, Ajanthan, Torr 2019): prunes once, before training, by the effect each weight has on the loss.

Saliency of a weight is |dL/dc| at c = 1, c being its mask: |w dL/dw|, of a loss summed over some batches.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compress.masked.method import check_share
from laconic.compress.masked.ranking import Scores
from laconic.compress.masked.scored import Scored
from laconic.errors import PruningError


@dataclass(frozen=True)
class Snip(Scored):
    """SNIP; call `pruner.sense(losses)` before the training.

    Attributes:
        sparsity: share of the masked weights to remove, 0 <= sparsity < 1.
        signed: ranks the signed gradient over its sum, as the Supermask Pruning code does by mistake; for
            comparison with its published numbers only.
        batches: how many batches a training takes the gradients of; `sense` takes all that it is given.
    """

    needs_losses: ClassVar[bool] = True

    sparsity: float
    signed: bool = False
    batches: int = 1

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        if self.batches < 1:
            raise PruningError(f"Snip: batches = {self.batches}; give at least one")

    @property
    def losses_wanted(self) -> int:
        return self.batches

    def scores(self, weights: Scores, gradients: Scores, moments: Scores) -> dict[str, Tensor]:
        if not self.signed:
            return {name: gradient.abs() for name, gradient in gradients.items()}
        whole = torch.stack([gradient.sum() for gradient in gradients.values()]).sum()
        return {name: gradient / whole for name, gradient in gradients.items()}
