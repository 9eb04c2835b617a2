"""What a recurrent captioner repeats at every time step, with the gradients gathered over all steps at once.

Plain autograd computes the gradient of a weight anew at each step and adds it up: twenty thin matrix products and
twenty passes over the whole matrix. Here each step only leaves its input and output gradient behind, and one wide
product at the end gives the same sum. Equal to the plain form up to rounding (tests), and faster. One
backward pass for each forward pass: a second over a retained graph would count twice.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type of matrix products: autocast's where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


@dataclass
class _Tape:
    """What the steps of one unrolling leave for the gathering at its start."""

    inputs: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)


class UnrolledLinear:
    """y = x W^T at many time steps: `UnrolledLinear(weight)(x)`; weight (outputs, inputs), x (rows, inputs)."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach().to(compute_dtype(weight))
        self.tape = _Tape()
        self.token = _GatherLinear.apply(weight, self.tape)

    def __call__(self, x: Tensor) -> Tensor:
        return _StepLinear.apply(x.to(self.weight.dtype), self.token, self.weight, self.tape)  # type: ignore[no-any-return]


class _GatherLinear(torch.autograd.Function):
    """Runs backward after all steps, since each step depends on its token."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, tape: _Tape) -> Tensor:
        ctx.tape, ctx.dtype = tape, weight.dtype
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None]:
        tape: _Tape = ctx.tape
        if not tape.grads:
            return None, None
        grad = torch.cat(tape.grads).t() @ torch.cat(tape.inputs)
        tape.grads.clear()
        tape.inputs.clear()
        return grad.to(ctx.dtype), None


class _StepLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, weight: Tensor, tape: _Tape) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.tape = tape
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        ctx.tape.inputs.append(x)
        ctx.tape.grads.append(grads[0])
        return grads[0] @ weight, grads[0].new_zeros(()), None, None


class UnrolledAttention:
    """Additive attention scores v . tanh(K + q) at many time steps.

    Args:
        keys: (rows, positions, size); a step may ask for the first n rows only.
        score: v, (1, size).
    """

    def __init__(self, keys: Tensor, score: Tensor) -> None:
        dtype = compute_dtype(keys)
        self.keys = keys.detach().to(dtype)
        self.score = score.detach().to(dtype)
        self.sums = _AttentionSums()
        self.token = _GatherAttention.apply(keys, score, self.sums)

    def __call__(self, asked: Tensor) -> Tensor:
        """asked (n, size), n <= rows -> scores (n, positions)."""
        asked = asked.to(self.keys.dtype)
        return _StepAttention.apply(asked, self.token, self.keys, self.score, self.sums)  # type: ignore[no-any-return]


@dataclass
class _AttentionSums:
    """Sums over steps of ds, ds * tanh^2 (rows, positions[, size]) and of ds * tanh over everything."""

    plain: Tensor | None = None
    squared: Tensor | None = None
    score: Tensor | None = None


class _GatherAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, score: Tensor, sums: _AttentionSums) -> Tensor:
        ctx.save_for_backward(score)
        ctx.sums, ctx.dtype = sums, keys.dtype
        return keys.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (score,) = ctx.saved_tensors
        sums: _AttentionSums = ctx.sums
        if sums.plain is None or sums.squared is None or sums.score is None:
            return None, None, None
        keys = (sums.plain.unsqueeze(-1) - sums.squared) * score.to(sums.squared.dtype)
        for_score = sums.score.to(score.dtype)
        sums.plain = sums.squared = sums.score = None
        return keys.to(ctx.dtype), for_score, None


class _StepAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, asked: Tensor, token: Tensor, keys: Tensor, score: Tensor, sums: _AttentionSums) -> Tensor:
        energy = (keys[: len(asked)] + asked.unsqueeze(1)).tanh_()
        ctx.save_for_backward(energy, keys, score)
        ctx.sums = sums
        return F.linear(energy, score).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        # d score / d q = v (1 - tanh^2): v is multiplied in once, at the end
        (grad,) = grads
        energy, keys, score = ctx.saved_tensors
        sums: _AttentionSums = ctx.sums
        if sums.plain is None or sums.squared is None or sums.score is None:
            precise = torch.promote_types(keys.dtype, torch.float32)
            sums.plain = torch.zeros(keys.shape[:2], dtype=precise, device=keys.device)
            sums.squared = torch.zeros(keys.shape, dtype=keys.dtype, device=keys.device)
            sums.score = torch.zeros(score.shape, dtype=precise, device=keys.device)
        rows = len(grad)
        sums.score += grad.reshape(1, -1) @ energy.flatten(0, 1)
        square = energy.square()
        sums.plain[:rows] += grad
        sums.squared[:rows].addcmul_(grad.unsqueeze(-1), square)
        weighted = torch.bmm(grad.unsqueeze(1), square).squeeze(1)
        for_asked = (grad.sum(1, keepdim=True) - weighted) * score
        return for_asked, grad.new_zeros(()), None, None, None
