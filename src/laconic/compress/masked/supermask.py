"""Supermask Pruning (SMP): gates learned together with the weights, pulled to a target sparsity by a loss.

Source: Tan, Chan, Chuah, "End-to-End Supermask Pruning", arXiv 2110.03298, sections 3.2-3.4. The method is a value;
all state lives in the gates and in the Pruner.

The published gating learning rate (100) and loss weight (5 to 120) fit 10 million gates and half a million steps,
and nothing else. Both are derived here; see `derive_learning_rate` and docs/METHODS.md.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from laconic.compress.masked.gating import count_open, pieces, sigmoid_slope
from laconic.compress.masked.masks import LearnedMask, Sampling
from laconic.compress.masked.method import Method, check_share
from laconic.compress.masked.ranking import keep_largest
from laconic.compress.masked.schedule import Cubic
from laconic.errors import PruningError

if TYPE_CHECKING:
    from laconic.compress.masked.pruner import Pruner

# The paper's eps of the gates' Adam. Gate gradients are far below it, which makes Adam a plain momentum
# descent of rate learning_rate / eps; tiny models need a larger eps to stay in that regime.
EPSILON = 1e-2
EPSILON_OVER_GRADIENT = 20.0
CROSSING = 0.2  # share of the training after which an undisturbed gate turns off
WEIGHT = 30.0  # lambda of the derived form
LARGEST_GATE = 20.0  # the sigmoid is 1 there in float32, and its slope next to nothing
TINY = 1e-30  # against a division by zero
START = 0.15  # share after which adaptive gates move; till then only the size of their gradients is learned
PACE = 0.1  # share after which the sparsity has to keep pace with its schedule
SETTLE = 0.5


@dataclass(frozen=True)
class Supermask(Method):
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
        pace: the sparsity may run ahead of a cubic schedule that reaches the target when the masks settle, but not
            lag behind it: all gates are lowered alike. False leaves it to the sparsity loss (as published); None: off
            with a given learning rate, on with a derived one.
        adaptive: each gate's step is measured by the size of its own gradients, and only the sparsity loss closes gates
            (`AdaptiveDescent`). For trained encoders, with sampling "round".
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
            if given is not None and not 0 < given < math.inf:
                raise PruningError(f"Supermask: {name} = {given}; give more than 0, or leave it out")
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

    def target(self, pruner: "Pruner") -> float:
        return self.sparsity

    def mask(self, name: str, weight: Tensor) -> LearnedMask:
        return LearnedMask(weight, self.init, self.sampling, self.slope)

    def begin(self, pruner: "Pruner") -> None:
        pruner.require_steps(self)
        pace = self.settings(pruner.weights, pruner.steps).pace
        if pace is None:
            return
        try:
            pace.over(pruner.steps)
        except PruningError:
            raise PruningError(
                f"Supermask: {pruner.steps} steps leave pace none from {self.pace_from:g} of them to the settling; "
                f"train longer, lower settle = {self.settled_share:g}, or set pace = false"
            ) from None

    def gate_optimizer(self, pruner: "Pruner", betas: tuple[float, float]) -> torch.optim.Optimizer:
        chosen = self.settings(pruner.weights, pruner.steps)
        gates = [mask.gates for mask in learned(pruner).values()]
        if self.adaptive:
            return AdaptiveDescent(gates, chosen.learning_rate, betas)
        return torch.optim.Adam(gates, lr=chosen.learning_rate, betas=betas, eps=chosen.epsilon, fused=True)

    def loss(self, pruner: "Pruner") -> Tensor | None:
        if self.settled(pruner) or self.adaptive:  # AdaptiveDescent has the pull apart from the gradients
            return None
        chosen = self.settings(pruner.weights, pruner.steps)
        return sparsity_loss(list(learned(pruner).values()), self, chosen, pruner.steps_done, pruner.steps)

    def add_gradient(self, pruner: "Pruner") -> None:
        """That of `loss`, one factor times each gate's slope, with no second gradient of the gates' size."""
        if self.settled(pruner) or self.adaptive:
            return
        pull = self._pull(pruner, pruner.steps_done)
        for mask in learned(pruner).values():
            mask.add_gradient(pull)

    def _pull(self, pruner: "Pruner", step: int) -> Tensor:
        """Derivative of the sparsity loss at a step by the number of gates that are on."""
        masks = learned(pruner).values()
        kept = torch.stack([count_open(mask.gates.detach()) for mask in masks]).sum().requires_grad_()
        chosen = self.settings(pruner.weights, pruner.steps)
        with torch.enable_grad():
            loss = _loss_of(kept, pruner.weights, self, chosen, step, pruner.steps)
        return torch.autograd.grad(loss, kept)[0]

    def update(self, pruner: "Pruner") -> None:
        """Gates move along their gradients; the next forward draws new masks."""
        if self.settled(pruner):
            return
        moving = pruner.steps_done > self.settings(pruner.weights, pruner.steps).start_at
        if isinstance(pruner.gate_optimizer, AdaptiveDescent):
            pruner.gate_optimizer.step_under(self._pull(pruner, pruner.steps_done - 1), moving)
        elif pruner.gate_optimizer is not None and moving:
            pruner.gate_optimizer.step()
        if moving:
            self._keep_pace(pruner)
        for mask in learned(pruner).values():
            mask.forget_gradient()
            mask.redraw()
        if self._due(pruner):
            self.trim(pruner)
            self._freeze(pruner)

    @torch.no_grad()
    def _keep_pace(self, pruner: "Pruner") -> None:
        """Lowers all gates alike where the sparsity lags behind the schedule; their order stays as learned."""
        pace = self.settings(pruner.weights, pruner.steps).pace
        if pace is None:
            return
        least = pace.sparsity(self.sparsity, pruner.steps_done, pruner.steps)
        if least is None or pruner.sparsity >= least:
            return
        gates = [mask.gates for mask in learned(pruner).values()]
        flat = torch.cat([g.flatten() for g in gates])
        excess = flat.topk(max(1, pruner.weights - int(least * pruner.weights)), sorted=False).values.min()
        for gate in gates:
            gate.sub_(excess)

    def settled(self, pruner: "Pruner") -> bool:
        return not next(iter(learned(pruner).values())).gates.requires_grad

    def trim(self, pruner: "Pruner") -> None:
        """The smallest gates go, or the largest come back; equal gates are ranked by the weights' magnitude."""
        gates = {name: mask.gates.detach() for name, mask in learned(pruner).items()}
        magnitudes = {name: weight.detach().abs() for name, weight in pruner.raw().items()}
        pruner.set_masks(keep_largest(gates, self.sparsity, ties=magnitudes))

    def resume(self, pruner: "Pruner") -> None:
        for mask in learned(pruner).values():
            mask.redraw()
        if self._due(pruner):
            self._freeze(pruner)

    def statistics(self, pruner: "Pruner") -> dict[str, float]:
        """Mean gate, and the sparsity loss with its weight and annealing."""
        total = sum(float(mask.gates.detach().sum(dtype=torch.float64)) for mask in learned(pruner).values())
        kept = torch.tensor((1 - pruner.sparsity) * pruner.weights, dtype=torch.float64)
        chosen = self.settings(pruner.weights, pruner.steps)
        penalty = _loss_of(kept, pruner.weights, self, chosen, pruner.steps_done, pruner.steps)
        return {"gate_mean": total / pruner.weights, "penalty": float(penalty)}

    def _due(self, pruner: "Pruner") -> bool:
        return self.settings(pruner.weights, pruner.steps).settle_at <= pruner.steps_done < pruner.steps

    def _freeze(self, pruner: "Pruner") -> None:
        for mask in learned(pruner).values():
            mask.freeze()

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


def learned(pruner: "Pruner") -> dict[str, LearnedMask]:
    """The masks that have gates."""
    return {name: mask for name, mask in pruner.active.items() if isinstance(mask, LearnedMask)}


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


def sparsity_loss(masks: list[LearnedMask], method: Supermask, settings: Settings, step: int, steps: int) -> Tensor:
    """lambda * alpha(n) * |s_target - s|, s over all masks together (eq. 7), with gradients to the gates.

    The gradient of the rounding is taken as one, so each gate gets +-lambda alpha / N * s(G) (1 - s(G)).
    """
    gates = [m.gates for m in masks]
    return _loss_of(_Kept.apply(*gates), sum(g.numel() for g in gates), method, settings, step, steps)


def _loss_of(kept: Tensor, gates: int, method: Supermask, settings: Settings, step: int, steps: int) -> Tensor:
    """The sparsity loss where `kept` (a scalar) of the gates are on."""
    gap = method.sparsity - 1 + kept / gates
    scale = settings.weight * anneal(step, steps)
    if method.penalty == "l2":
        return scale * gap.square()
    if method.penalty == "hinge":
        return scale * gap.clamp(min=0.0)
    return scale * gap.abs()


class AdaptiveDescent(torch.optim.Optimizer):
    """Gates fall by p / (r + p) of the learning rate a step: p the pull of the sparsity loss, r the root mean square of
    the task's gradient, w g times the slope.

    A gate whose weight matters little falls at the full rate, one whose gradients are large hardly at all, so gates
    rank weights by w^2 E[g^2] (compress/fisher.py). The task's mean gradient may hold a gate up or lift it again, but
    not close it: that a weight's removal would help is a first-order guess, and in an encoder at rest a wrong one.
    """

    def __init__(self, gates: list[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> None:
        super().__init__(gates, {"lr": learning_rate, "betas": betas})

    @torch.no_grad()
    def step_under(self, pull: Tensor, moving: bool) -> None:
        """One step along the task's gradients and the sparsity loss's `pull`, which has yet to pass the slope.

        Gates that are not `moving` have their gradients watched all the same.
        """
        for group in self.param_groups:
            for gate in group["params"]:
                given = torch.zeros_like(gate) if gate.grad is None else gate.grad  # nothing reads its weight
                state = self.state[gate]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(gate), "square": torch.zeros_like(gate)}
                state["step"] += 1
                first, second = (1 - beta ** state["step"] for beta in group["betas"])
                for some, grad, mean, square in pieces(gate, given, state["mean"], state["square"]):
                    mean.lerp_(grad, 1 - group["betas"][0])
                    square.lerp_(grad.square(), 1 - group["betas"][1])
                    if moving:
                        penalty = sigmoid_slope(some, pull.to(some.dtype).expand_as(some))
                        size = (square / second).sqrt_().add_(penalty.abs()).add_(TINY)
                        some.sub_((mean / first).clamp_(max=0).add_(penalty).div_(size), alpha=group["lr"])


class _Kept(torch.autograd.Function):
    """Number of gates that are on; the rounding passes its gradient, the sigmoid its slope."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(*gates)
        return torch.stack([count_open(g) for g in gates]).sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        saved: tuple[Tensor, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        return tuple(sigmoid_slope(g, grad.to(g.dtype).expand_as(g)) for g in saved)
