"""Pruning by magnitude: hard (once) or gradual, class-blind, class-uniform or class-distribution.

Sources: See, Luong, Manning 2016 (the three scopes), Zhu, Gupta 2017 (the cubic schedule), as compared in
arXiv 2110.03298, section 4.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from laconic.compress.masked.method import check_parts, check_share
from laconic.compress.masked.ranking import Scope, Scores, magnitudes
from laconic.compress.masked.schedule import Cubic
from laconic.compress.masked.scored import Scored
from laconic.errors import PruningError


@dataclass(frozen=True)
class Magnitude(Scored):
    """Weights of small magnitude go, once, before the training.

    Attributes:
        sparsity: share of the masked weights to remove, 0 <= sparsity < 1.
        scope: "blind" ranks all weights together, "uniform" each tensor on its own, "distribution" by multiples of
            the tensor's standard deviation.
        centred: "distribution" takes the mean off first; see `magnitudes`.
        parts: sparsities of parts that are ranked among themselves; see `Scored`.
    """

    sparsity: float
    scope: Scope = "blind"
    centred: bool = False
    parts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        check_parts(self.parts)
        if self.centred and self.scope != "distribution":
            raise PruningError('centred is for scope "distribution"; leave it out')

    def scores(self, weights: Scores, gradients: Scores, moments: Scores) -> dict[str, Tensor]:
        return magnitudes(weights, self.scope, self.centred)


@dataclass(frozen=True)
class Gradual(Magnitude):
    """Weights of small magnitude go, more and more of them while the model trains.

    Attributes:
        sparsity: share of the masked weights to remove, 0 <= sparsity < 1.
        scope: "blind" ranks all weights together, "uniform" each tensor on its own, "distribution" by multiples of
            the tensor's standard deviation.
        centred: "distribution" takes the mean off first; see `magnitudes`.
        parts: sparsities of parts that are ranked among themselves; see `Scored`.
        schedule: from which step to which, and how often weights are removed.
    """

    needs_steps: ClassVar[bool] = True

    schedule: Cubic = field(default_factory=Cubic)
