"""The driver of learned masks: moves the gates along their gradients, to the target sparsity.

A mask takes part once its weight has had a gradient, and moves in those steps in which it gets one. What has never had
any (no loss reads it) and what is frozen rests: it keeps its mask, and the target holds for the others. A step whose
gradients are not finite moves no gate; masks that stand still at the target never move again.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from laconic.compress.masked.descent import AdaptiveDescent
from laconic.compress.masked.driver import Driver, MaskedWeight
from laconic.compress.masked.gating import count_open, sigmoid_slope
from laconic.compress.masked.masks import LearnedMask
from laconic.compress.masked.ranking import keep_largest
from laconic.compress.piecewise import all_finite
from laconic.errors import PruningError

if TYPE_CHECKING:
    from laconic.compress.masked.supermask import Settings, Supermask

BETAS = (0.9, 0.999)  # of the gates' optimizer, unless that of the weights has two others


class Gates(Driver):
    """Supermask Pruning in one training."""

    optimizer: torch.optim.Optimizer

    def __init__(self, method: "Supermask", weights: Mapping[str, MaskedWeight], steps: int) -> None:
        super().__init__(weights, steps)
        self.method = method
        self.masks = self.learned
        self.chosen = method.settings(self.count, steps)
        self._check_pace()
        self.read: set[str] = set()  # names of what has had a gradient
        self.still = False
        self._fed: set[str] = set()  # names of what has one in this step
        self._finite: bool | None = None  # whether the gradients of this step are, where that is known
        gates = [mask.gates for mask in self.masks.values()]
        rate = self.chosen.learning_rate
        self.optimizer = (
            AdaptiveDescent(gates, rate, BETAS)
            if method.adaptive
            else torch.optim.Adam(gates, lr=rate, betas=BETAS, eps=self.chosen.epsilon, fused=True)
        )

    @property
    def moving(self) -> dict[str, LearnedMask]:
        """The masks that take part: before any gradient is known, all."""
        return {n: mask for n, mask in self.masks.items() if n not in self.held and (n in self.read or not self.read)}

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Inherits the betas; what the gates' optimizer has gathered stays."""
        given = optimizer.defaults.get("betas", BETAS)
        betas = tuple(map(float, given)) if len(given) == 2 else BETAS
        for settings in (self.optimizer.defaults, *self.optimizer.param_groups):
            settings["betas"] = betas

    def penalty(self, step: int) -> Tensor | None:
        if self.still or self.method.adaptive:  # AdaptiveDescent has the pull apart from the gradients
            return None
        return self._scaled(sparsity_loss(list(self.moving.values()), self.method, self.chosen, step, self.steps))

    def add_penalty(self, step: int) -> None:
        """One factor times each gate's slope, with no second gradient of the gates' size."""
        self._watch()
        if self.still or self.method.adaptive:
            return
        pull = self._pull(step)
        finite = [self.masks[name].add_gradient(pull) for name in sorted(self._fed)]
        self._finite = all(finite)

    def update(self, step: int) -> None:
        """Gates move along their gradients; the next forward draws new masks."""
        if self.still:
            return
        self._watch()
        for name in self.held | (self.masks.keys() - self._fed):
            self.masks[name].forget_gradient()
        started = step > self.chosen.start_at
        if self._sound():
            if isinstance(self.optimizer, AdaptiveDescent):
                self.optimizer.step_under(self._pull(step - 1), started)
            elif started:
                self.optimizer.step()
        if started:
            self._keep_pace(step)
        for mask in self.masks.values():
            mask.forget_gradient()
            mask.redraw()
        self._fed, self._finite = set(), None
        if self._due(step):
            self.trim(step)
            self._stop()

    def settled(self, step: int) -> bool:
        return self.still

    def trim(self, step: int) -> None:
        """The smallest gates go, or the largest come back; equal gates are ranked by the weights' magnitude."""
        moving = self.moving
        if not moving:
            raise PruningError("nothing is left to prune: all of it has been frozen")
        gates = {name: mask.gates.detach() for name, mask in moving.items()}
        magnitudes = {name: self.weights[name].value.abs() for name in moving}
        for name, keep in keep_largest(gates, self.method.sparsity, ties=magnitudes).items():
            moving[name].set(keep)

    def statistics(self, step: int) -> dict[str, float]:
        """Mean gate, and the sparsity loss with its weight and annealing."""
        total = sum(float(mask.gates.detach().sum(dtype=torch.float64)) for mask in self.masks.values())
        kept, count = self._counts()
        loss = self.method.loss(torch.tensor(kept, dtype=torch.float64), count, self.chosen, step, self.steps)
        return {"gate_mean": total / self.count, "penalty": float(self._scaled(loss))}

    @property
    def target(self) -> float:
        return self.share_under(dict.fromkeys(self.moving, self.method.sparsity))

    def onto(self, weights: Mapping[str, MaskedWeight]) -> Driver:
        twin = super().onto(weights)
        assert isinstance(twin, Gates)
        twin.masks, twin.still = twin.learned, False
        return twin

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "read": sorted(self.read), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        super().load_state_dict(state, step)
        self.read = set(state.get("read", self.masks))  # a checkpoint from before that was watched: all
        self.optimizer.load_state_dict(state["optimizer"])
        self._fed, self._finite = set(), None
        if self._due(step):
            self._stop()
        else:
            self.still = False
            for name, mask in self.masks.items():
                if name in self.held:
                    mask.freeze()
                else:
                    mask.unfreeze(self.method.sampling)

    # Parts

    def _watch(self) -> None:
        """Which masks have a gradient in this step, and which of them have been frozen."""
        if self._fed:
            return
        for name in self.hold_frozen():
            self.masks[name].freeze()
        learning = {name: weight.parameter for name, weight in self.weights.items() if name not in self.held}
        gated = {name for name in learning if self.masks[name].gates.grad is not None}
        # That of the weight tells, since a loop's own penalty reaches every gate; but some optimizers drop it early.
        fed = {name for name, weight in learning.items() if weight.grad is not None}
        self._fed = fed | {name for name in gated if not fed or not learning[name].requires_grad}
        self.read |= self._fed

    def _sound(self) -> bool:
        """Whether the gradients of this step are finite."""
        if self._finite is None:
            gradients = (self.masks[name].gates.grad for name in self._fed)
            self._finite = all_finite([gradient for gradient in gradients if gradient is not None])
        return self._finite

    def _pull(self, step: int) -> Tensor:
        """Derivative of the sparsity loss at a step by the number of gates that are on."""
        gates = [mask.gates.detach() for mask in self.moving.values()]
        if not gates:
            return torch.zeros(())
        kept = torch.stack([count_open(some) for some in gates]).sum().requires_grad_()
        with torch.enable_grad():
            loss = self.method.loss(kept, sum(g.numel() for g in gates), self.chosen, step, self.steps)
        return torch.autograd.grad(self._scaled(loss), kept)[0]

    def _scaled(self, loss: Tensor) -> Tensor:
        """Gates fall as fast as the settings say, which know of all of them, where some rest."""
        count = sum(mask.gates.numel() for mask in self.moving.values())
        return loss if count == self.count else loss * (count / self.count)

    @torch.no_grad()
    def _keep_pace(self, step: int) -> None:
        """Lowers all gates alike where the sparsity lags behind the schedule; their order stays as learned."""
        pace = self.chosen.pace
        least = None if pace is None else pace.sparsity(self.method.sparsity, step, self.steps)
        if least is None or not self.read - self.held:
            return
        kept, count = self._counts()
        if 1 - kept / count >= least:
            return
        gates = [mask.gates for mask in self.moving.values()]
        flat = torch.cat([g.flatten() for g in gates])
        excess = flat.topk(max(1, count - int(least * count)), sorted=False).values.min()
        for gate in gates:
            gate.sub_(excess)

    def _counts(self) -> tuple[int, int]:
        """Of the masks that take part: gates that are on, and gates."""
        moving = self.moving
        kept = sum(self.weights[name].kept for name in moving)
        return kept, max(1, sum(mask.gates.numel() for mask in moving.values()))

    def _due(self, step: int) -> bool:
        return self.chosen.settle_at < self.steps and self.chosen.settle_at <= step

    def _stop(self) -> None:
        self.still = True
        for mask in self.masks.values():
            mask.freeze()

    def _check_pace(self) -> None:
        pace, method = self.chosen.pace, self.method
        if pace is None:
            return
        try:
            pace.over(self.steps)
        except PruningError:
            raise PruningError(
                f"Supermask: {self.steps} steps leave pace none from {method.pace_from:g} of them to the settling; "
                f"train longer, lower settle = {method.settled_share:g}, or set pace = false"
            ) from None


def sparsity_loss(
    masks: Iterable[LearnedMask], method: "Supermask", settings: "Settings", step: int, steps: int
) -> Tensor:
    """lambda * alpha(n) * |s_target - s|, s over all masks together (eq. 7), with gradients to the gates.

    The gradient of the rounding is taken as one, so each gate gets +-lambda alpha / N * s(G) (1 - s(G)).
    """
    gates = [mask.gates for mask in masks]
    return method.loss(_Kept.apply(*gates), sum(g.numel() for g in gates), settings, step, steps)


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
