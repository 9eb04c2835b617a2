"""Supermask Pruning (SMP): gates learned together with the weights, pulled to a target sparsity by a loss.

Source: Tan, Chan, Chuah, "End-to-End Supermask Pruning", arXiv 2110.03298, sections 3.2-3.4. The method is a value;
all state lives in the gates and in the Pruner.

The published gating learning rate (100) and loss weight (5 to 120) fit 10 million gates and half a million steps,
and nothing else. Both are derived here; see `derive_learning_rate` and docs/METHODS.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from laconic.compress.masks import LearnedMask, Sampling, sigmoid_slope
from laconic.errors import PruningError

# The paper's eps of the gates' Adam. Gate gradients are far below it, which makes Adam a plain momentum
# descent of rate learning_rate / eps; tiny models need a larger eps to stay in that regime.
EPSILON = 1e-2
EPSILON_OVER_GRADIENT = 20.0
CROSSING = 0.2  # share of the training after which an undisturbed gate turns off
WEIGHT = 30.0  # lambda of the derived form
SETTLE = 0.6


@dataclass(frozen=True)
class Supermask:
    """SMP with a target sparsity; everything else is derived unless given.

    Attributes:
        sparsity: share of masked weights that end as zero, 0 <= s < 1.
        init: initial gate m (Table 5 of the paper; 5.0).
        weight: of the sparsity loss (lambda); None: WEIGHT, or with a given learning rate the published
            max(5, 0.5 / (1 - s)).
        learning_rate: of the gates; None: derived from the number of gates and steps (published: 100).
        epsilon: of the gates' Adam; None: 0.01 as published, larger for models of few gates.
        sampling: "bernoulli" draws masks in training, "round" does not.
        penalty: "l1" as published, "l2", or "hinge", which does not pull back above the target.
        slope: gates' gradient passes the sigmoid's derivative, as published.
        settle: share of the training, at its end, in which the masks stand still at the exact target and only
            weights learn; None: 0 (as published) with a given learning rate, SETTLE with a derived one.
    """

    sparsity: float
    init: float = 5.0
    weight: float | None = None
    learning_rate: float | None = None
    epsilon: float | None = None
    sampling: Sampling = "bernoulli"
    penalty: Literal["l1", "l2", "hinge"] = "l1"
    slope: bool = True
    settle: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise PruningError(f"sparsity {self.sparsity} is not possible; give 0 <= sparsity < 1")
        if self.settle is not None and not 0.0 <= self.settle < 1.0:
            raise PruningError(f"settle {self.settle} is not possible; give 0 <= settle < 1")

    def mask(self, weight: Tensor) -> LearnedMask:
        """A fresh mask for one weight."""
        return LearnedMask(weight, self.init, self.sampling, self.slope)

    def settings(self, gates: int, steps: int) -> "Settings":
        """The constants of a run over `gates` gates and `steps` training steps, derived where not given."""
        derived = self.learning_rate is None
        weight = self.weight
        if weight is None:
            weight = WEIGHT if derived else max(5.0, 0.5 / (1 - self.sparsity))
        epsilon = self.epsilon
        if epsilon is None:
            epsilon = max(EPSILON, EPSILON_OVER_GRADIENT * weight / gates)
        rate = self.learning_rate
        if rate is None:
            rate = derive_learning_rate(gates, steps, weight, epsilon, self.init)
        settle = self.settle if self.settle is not None else (SETTLE if derived else 0.0)
        return Settings(weight, rate, epsilon, steps - int(settle * steps))


@dataclass(frozen=True)
class Settings:
    """Constants of one run.

    Attributes:
        weight: of the sparsity loss, lambda.
        learning_rate, epsilon: of the gates' Adam.
        settle_at: step from which the masks stand still.
    """

    weight: float
    learning_rate: float
    epsilon: float
    settle_at: int


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


def sparsity_loss(masks: list[LearnedMask], method: Supermask, settings: Settings, step: int, steps: int) -> Tensor:
    """lambda * alpha(n) * |s_target - s|, s over all masks together (eq. 7), with gradients to the gates.

    The gradient of the rounding is taken as one, so each gate gets +-lambda alpha / N * s(G) (1 - s(G)).
    """
    total = sum(m.gates.numel() for m in masks)
    gates = [m.gates for m in masks]
    gap: Tensor = method.sparsity - 1 + _Kept.apply(*gates) / total
    scale = settings.weight * anneal(step, steps)
    if method.penalty == "l2":
        return scale * gap.square()
    if method.penalty == "hinge":
        return scale * gap.clamp(min=0.0)
    return scale * gap.abs()


class _Kept(torch.autograd.Function):
    """Number of gates that are on; the rounding passes its gradient, the sigmoid its slope."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(*gates)
        kept = [torch.count_nonzero(g > 0) for g in gates]
        # float64: float32 stops counting at 2 ** 24
        return torch.stack(kept).sum().to(torch.float64)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        saved: tuple[Tensor, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        return tuple(sigmoid_slope(g, grad.to(g.dtype).expand_as(g)) for g in saved)
