"""Supermask Pruning (SMP): gates learned together with the weights, pulled to a target sparsity by a loss.

Source: Tan, Chan, Chuah, "End-to-End Supermask Pruning", arXiv 2110.03298, sections 3.2-3.4. The method is a value;
all state lives in the gates and in their driver (gates.py).

The published gating learning rate (100) and loss weight (5 to 120) fit 10 million gates and half a million steps,
and nothing else. Both are derived here; see `derive_learning_rate` and docs/METHODS.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from laconic.compress.masked.driver import Driver, MaskedWeight
from laconic.compress.masked.gates import Gates
from laconic.compress.masked.masks import LearnedMask, Sampling
from laconic.compress.masked.method import Method, check_share
from laconic.compress.masked.schedule import Cubic
from laconic.errors import PruningError

# The paper's eps of the gates' Adam. Gate gradients are far below it, which makes Adam a plain momentum
# descent of rate learning_rate / eps; tiny models need a larger eps to stay in that regime.
EPSILON = 1e-2
EPSILON_OVER_GRADIENT = 20.0
CROSSING = 0.2  # share of the training after which an undisturbed gate turns off
WEIGHT = 30.0  # lambda of the derived form
LARGEST_GATE = 20.0  # the sigmoid is 1 there in float32, and its slope next to nothing
LARGEST = 1e9  # of a weight, a rate or an epsilon, and the inverse of their smallest: float32 holds what comes of them
START = 0.15  # share after which adaptive gates move; till then only the size of their gradients is learned
PACE = 0.1  # share after which the sparsity has to keep pace with its schedule
SETTLE = 0.5


@dataclass(frozen=True)
class Supermask(Method):
    """SMP with a target sparsity; everything else is derived unless given.

    Attributes:
        sparsity: share of the masked weights to remove, 0 <= sparsity < 1. It is all that you have to give.
        init: value that every gate begins with (m in the paper); a weight is kept where its gate is above 0.
        weight: of the sparsity loss (lambda), 1e-9 to 1e9. None: 30, or with a given learning rate the published
            max(5, 0.5 / (1 - sparsity)).
        learning_rate: of the gates, 1e-9 to 1e9 (published: 100). None derives it from the number of gates and steps.
        epsilon: of the gates' Adam, 1e-9 to 1e9. None: 0.01 as published, more for models of few gates.
        sampling: "bernoulli" draws masks at random in training, "round" keeps every weight whose gate is above 0.
        penalty: form of the sparsity loss: "l1" as published, "l2", or "hinge", which does not pull back above the
            target.
        slope: the gradient of a gate is multiplied by the slope of the sigmoid, as published.
        settle: share of the training, at its end, in which the masks stand still at the exact target and only weights
            learn. None: a half, or with a given learning rate 0, as published.
        pace: the sparsity may run ahead of a cubic schedule, but not lag behind it. False leaves it to the sparsity
            loss, as published. None: true, or with a given learning rate false.
        adaptive: learns the masks of a trained encoder while its weights rest: each gate's step is measured by the size
            of its own gradients, and only the sparsity loss closes gates. Goes with sampling = "round".
    """

    needs_steps: ClassVar[bool] = True

    sparsity: float
    init: float = 5.0
    weight: float | None = None
    learning_rate: float | None = None
    epsilon: float | None = None
    sampling: Sampling = "bernoulli"
    penalty: Literal["l1", "l2", "hinge"] = "l1"
    slope: bool = True
    settle: float | None = None
    pace: bool | None = None
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        if self.adaptive and self.epsilon is not None:
            raise PruningError(f"Supermask: adaptive has no epsilon; leave out epsilon={self.epsilon}")
        if self.settle is not None:
            check_share("settle", self.settle)
        for name in ("weight", "learning_rate", "epsilon"):
            given = getattr(self, name)
            if given is not None and not 1 / LARGEST <= given <= LARGEST:
                raise PruningError(f"Supermask: {name} = {given}; give {1 / LARGEST:g} to {LARGEST:g}, or leave it out")
        derived = self.learning_rate is None
        if not abs(self.init) <= LARGEST_GATE or (derived and self.init <= 0):
            least = "more than 0" if derived else f"at least -{LARGEST_GATE:g}"
            raise PruningError(f"Supermask: init = {self.init}; give {least} and at most {LARGEST_GATE:g}")
        if self.paced and 1 - self.settled_share <= self.pace_from:
            most = 1 - self.pace_from
            raise PruningError(f"Supermask: settle = {self.settled_share} leaves pace no time; give less than {most:g}")

    @property
    def paced(self) -> bool:
        return self.learning_rate is None if self.pace is None else self.pace

    @property
    def pace_from(self) -> float:
        """Share of the training after which the sparsity has to keep pace."""
        return START + CROSSING if self.adaptive else PACE

    @property
    def settled_share(self) -> float:
        """Share of the training in which the masks stand still."""
        return self.settle if self.settle is not None else SETTLE if self.learning_rate is None else 0.0

    def mask(self, name: str, weight: Tensor) -> LearnedMask:
        return LearnedMask(weight, self.init, self.sampling, self.slope)

    def drive(self, weights: Mapping[str, MaskedWeight], steps: int) -> Driver:
        return Gates(self, weights, steps)

    def loss(self, kept: Tensor, gates: int, settings: "Settings", step: int, steps: int) -> Tensor:
        """The sparsity loss lambda * alpha(n) * |s_target - s| where `kept` (a scalar) of the gates are on (eq. 7)."""
        gap = self.sparsity - 1 + kept / gates
        scale = settings.weight * anneal(step, steps)
        if self.penalty == "l2":
            return scale * gap.square()
        if self.penalty == "hinge":
            return scale * gap.clamp(min=0.0)
        return scale * gap.abs()

    def settings(self, gates: int, steps: int) -> "Settings":
        """The constants of a run over `gates` gates and `steps` training steps, derived where not given."""
        derived = self.learning_rate is None
        weight = self.weight
        if weight is None:
            weight = WEIGHT if derived else max(5.0, 0.5 / (1 - self.sparsity))
        epsilon, rate = self.epsilon, self.learning_rate
        if epsilon is None:
            epsilon = max(EPSILON, EPSILON_OVER_GRADIENT * weight / gates)
        if rate is None and self.adaptive:
            rate = self.init / max(1.0, CROSSING * steps)
        elif rate is None:
            rate = derive_learning_rate(gates, steps, weight, epsilon, self.init)
        settle_at = steps - int(self.settled_share * steps)
        start_at = int(START * steps) if self.adaptive else 0
        pace = Cubic(start=int(self.pace_from * steps), end=max(settle_at - 1, 1)) if self.paced else None
        return Settings(weight, rate, epsilon, start_at, settle_at, pace)


@dataclass(frozen=True)
class Settings:
    """Constants of one run.

    Attributes:
        weight: of the sparsity loss, lambda.
        learning_rate, epsilon: of the gates' Adam.
        start_at: step after which the gates move.
        settle_at: step from which the masks stand still.
        pace: the least sparsity at each step, if any.
    """

    weight: float
    learning_rate: float
    epsilon: float
    start_at: int
    settle_at: int
    pace: Cubic | None


def anneal(step: int, steps: int) -> float:
    """alpha(n) = 1 - (1 + cos(pi min(1, n / n_max))) / 2, from 0 to 1 (eq. 8 of the paper)."""
    return 0.5 - 0.5 * math.cos(math.pi * min(1.0, step / steps))


def derive_learning_rate(gates: int, steps: int, weight: float, epsilon: float, init: float) -> float:
    """Learning rate at which an undisturbed gate falls from `init` to 0 after CROSSING of the steps.

    Under the sparsity loss alone a gate moves by (rate / eps) * lambda * alpha(n) / N * s(G) (1 - s(G)) a step.
    Integrating dG / (s (1 - s)) from 0 to m gives 2 m + 2 sinh m on the one side, and
    (rate / eps) * (lambda / N) * n_max * (x / 2 - sin(pi x) / (2 pi)) up to the share x of training on the other.
    It explains the authors' own logged run (predicted crossing 0.282, logged 0.283).
    """
    distance = 2 * init + 2 * math.sinh(init)
    annealed = steps * (CROSSING / 2 - math.sin(math.pi * CROSSING) / (2 * math.pi))
    return distance * gates * epsilon / (weight * annealed)
