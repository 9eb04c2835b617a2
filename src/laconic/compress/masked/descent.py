"""The descent of adaptive gates: steps measured by each gate's own gradients, for supermasks on trained networks."""

import torch
from torch import Tensor, nn

from laconic.compress.masked.gating import sigmoid_slope
from laconic.compress.piecewise import pieces

TINY = 1e-30  # against a division by zero


class AdaptiveDescent(torch.optim.Optimizer):
    """Gates fall by p / (r + p) of the learning rate a step: p the pull of the sparsity loss, r the root mean square of
    the task's gradient, w g times the slope.

    A gate whose weight matters little falls at the full rate, one whose gradients are large hardly at all, so gates
    rank weights by w^2 E[g^2] (fisher.py). The task's mean gradient may hold a gate up or lift it again, but
    not close it: that a weight's removal would help is a first-order guess, and in an encoder at rest a wrong one.
    """

    def __init__(self, gates: list[nn.Parameter], learning_rate: float, betas: tuple[float, float]) -> None:
        super().__init__(gates, {"lr": learning_rate, "betas": betas})

    @torch.no_grad()
    def step_under(self, pull: Tensor, moving: bool) -> None:
        """One step along the task's gradients and the sparsity loss's `pull`, which has yet to pass the slope.

        Gates that are not `moving` have their gradients watched all the same; those without a gradient rest.
        """
        for group in self.param_groups:
            for gate in group["params"]:
                if gate.grad is None:
                    continue
                state = self.state[gate]
                if not state:
                    state |= {"step": 0, "mean": torch.zeros_like(gate), "square": torch.zeros_like(gate)}
                state["step"] += 1
                first, second = (1 - beta ** state["step"] for beta in group["betas"])
                for some, grad, mean, square in pieces(gate, gate.grad, state["mean"], state["square"]):
                    mean.lerp_(grad, 1 - group["betas"][0])
                    square.lerp_(grad.square(), 1 - group["betas"][1])
                    if moving:
                        penalty = sigmoid_slope(some, pull.to(some.dtype).expand_as(some))
                        size = (square / second).sqrt_().add_(penalty.abs()).add_(TINY)
                        some.sub_((mean / first).clamp_(max=0).add_(penalty).div_(size), alpha=group["lr"])
