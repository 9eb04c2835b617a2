"""Pruning by magnitude: hard (once) or gradual, class-blind, class-uniform or class-distribution.

Sources: See, Luong, Manning 2016 (the three scopes), Zhu, Gupta 2017 (the cubic schedule), as compared in
arXiv 2110.03298, section 4.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from laconic.compress.masked.method import Method, check_share
from laconic.compress.masked.ranking import Scope, keep_largest, magnitudes
from laconic.compress.masked.schedule import Cubic

if TYPE_CHECKING:
    from laconic.compress.masked.pruner import Pruner


@dataclass(frozen=True)
class Magnitude(Method):
    """Weights of small magnitude go.

    Attributes:
        sparsity: share to remove.
        scope: "blind" ranks all weights together, "uniform" each tensor on its own, "distribution" by multiples of
            the tensor's standard deviation.
        schedule: None prunes once, at the start; a Cubic gradually while the model trains.
        centred: "distribution" takes the mean off first; see `magnitudes`.
    """

    sparsity: float
    scope: Scope = "blind"
    schedule: Cubic | None = None
    centred: bool = False

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)

    def target(self, pruner: "Pruner") -> float:
        return self.sparsity

    def begin(self, pruner: "Pruner") -> None:
        if self.schedule is None:
            self.prune(pruner, self.sparsity)
        else:
            pruner.require_steps(self)
            self.schedule.over(pruner.steps)  # raises where they are too few

    def update(self, pruner: "Pruner") -> None:
        if self.schedule is not None:
            sparsity = self.schedule.sparsity(self.sparsity, pruner.steps_done, pruner.steps)
            if sparsity is not None:
                self.prune(pruner, sparsity)

    def settled(self, pruner: "Pruner") -> bool:
        return self.schedule is None or pruner.steps_done >= self.schedule.over(pruner.steps)[1]

    def trim(self, pruner: "Pruner") -> None:
        if not self.settled(pruner):
            self.prune(pruner, self.sparsity)

    def prune(self, pruner: "Pruner", sparsity: float) -> None:
        """Masks by the present magnitudes; weights pruned before are ranked by the value that is kept of them.

        They have no gradient since, but an optimizer's momentum and decay still move them a little.
        """
        scores = magnitudes(pruner.raw(), self.scope, self.centred)
        pruner.set_masks(keep_largest(scores, sparsity, self.scope))


@dataclass(frozen=True)
class Gradual(Magnitude):
    """Magnitude pruning while the model trains (Zhu, Gupta 2017)."""

    schedule: Cubic | None = field(default_factory=Cubic)
