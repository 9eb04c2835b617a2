"""Gradual pruning by the loss's curvature: for trained networks whose weights' size does not tell what they do.

Sources: LeCun, Denker, Solla 1990 (Optimal Brain Damage: half the second derivative times the square of the weight is
what its removal costs), Theis et al. 2018, arXiv 1801.05787 (the empirical Fisher information in its place). That is
the mean square of the gradient, which Adam keeps anyway.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from laconic.compress.masked.method import check_parts, check_share
from laconic.compress.masked.ranking import Scores
from laconic.compress.masked.schedule import Cubic
from laconic.compress.masked.scored import Scored
from laconic.errors import PruningError


@dataclass(frozen=True)
class Fisher(Scored):
    """Weights of small w^2 E[g^2] go, gradually; the Pruner must be attached to an optimizer that keeps E[g^2].

    For a MobileNet whose batch norm is folded, for one: 30 or 50 % of it pruned at once move the logits less than half
    as far as by magnitude, 10 % farther (docs/LOG.md, What a MobileNet-V2 encoder bears).

    Attributes:
        sparsity: share of the masked weights to remove, 0 <= sparsity < 1.
        scope: "blind" ranks all weights together, "uniform" each tensor on its own.
        schedule: from which step to which, and how often weights are removed.
        parts: sparsities of parts that are ranked among themselves; see `Scored`.
    """

    needs_steps: ClassVar[bool] = True
    needs_moments: ClassVar[bool] = True

    sparsity: float
    scope: Literal["blind", "uniform"] = "blind"
    schedule: Cubic = field(default_factory=Cubic)
    parts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        check_parts(self.parts)
        if self.scope not in ("blind", "uniform"):
            raise PruningError(f"Fisher: scope = {self.scope!r}; give 'blind' or 'uniform'")

    def scores(self, weights: Scores, gradients: Scores, moments: Scores) -> dict[str, Tensor]:
        return {name: weights[name].square() * moment for name, moment in moments.items()}
