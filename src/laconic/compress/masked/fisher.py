"""Gradual pruning by the loss's curvature: for trained networks whose weights' size does not tell what they do.

Sources: LeCun, Denker, Solla 1990 (Optimal Brain Damage: half the second derivative times the square of the weight is
what its removal costs), Theis et al. 2018, arXiv 1801.05787 (the empirical Fisher information in its place). That is
the mean square of the gradient, which Adam keeps anyway.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.ranking import keep_largest
from laconic.compress.masked.schedule import Cubic
from laconic.errors import PruningError

if TYPE_CHECKING:
    from laconic.compress.masked.pruner import Pruner


@dataclass(frozen=True)
class Fisher(Magnitude):
    """Weights of small w^2 E[g^2] go, gradually; the Pruner must be attached to an Adam.

    For a MobileNet whose batch norm is folded, for one: 30 or 50 % of it pruned at once move the logits less than half
    as far as by magnitude, 10 % farther (docs/LOG.md, What a MobileNet-V2 encoder bears).
    `scope` is "blind" or "uniform".
    """

    schedule: Cubic | None = field(default_factory=Cubic)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule is None or self.scope == "distribution" or self.centred:
            raise PruningError("Fisher takes a schedule, and scope 'blind' or 'uniform'")

    def prune(self, pruner: "Pruner", sparsity: float) -> None:
        """Masks by the present weights and moments; weights pruned before have moments that fade away."""
        scores = {name: _score(pruner, weight) for name, weight in pruner.raw().items()}
        pruner.set_masks(keep_largest(scores, sparsity, self.scope))

    def attach(self, pruner: "Pruner", optimizer: torch.optim.Optimizer) -> None:
        if "betas" not in optimizer.defaults:
            raise PruningError("Fisher reads second moments, which this optimizer lacks: attach the pruner to an Adam")
        trained = {id(held) for group in optimizer.param_groups for held in group["params"]}
        for name, weight in pruner.raw().items():
            if id(weight) not in trained:
                raise PruningError(f"Fisher reads Adam's second moments, {name} has none: train it or leave it out")


def _score(pruner: "Pruner", weight: Tensor) -> Tensor:
    if pruner.optimizer is None:
        raise PruningError("Fisher reads Adam's second moments: attach the pruner to an Adam")
    moments: Tensor | float = pruner.optimizer.state.get(weight, {}).get("exp_avg_sq", 0.0)  # 0: no loss depends on it
    return weight.detach().square() * moments
