"""What a recurrent captioner repeats at every time step, with the gradients gathered over all steps at once.

Plain autograd computes the gradient of a weight anew at each step and adds it up: twenty thin matrix products and
twenty passes over the whole matrix. Here each step only leaves its input and output gradient behind, and one wide
product at the end gives the same sum. Equal to the plain form up to rounding (tests), and faster. One
backward pass for each forward pass: a second over a retained graph would count twice.

Beside that: `Order`, the rows of a teacher-forced batch such that each step computes the live ones only, and the
LSTM's pointwise part.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from laconic.spec.tokens import PAD

# Rows of a step come in multiples of this: for each new shape of a product in bfloat16 PyTorch's CPU library compiles
# a kernel, which takes longer than the product (docs/LOG.md, 2026-11-23).
ROUND = 16


def compute_dtype(x: Tensor) -> torch.dtype:
    """Type of matrix products: autocast's where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """New hidden and cell state (rows, hidden); gates (rows, 4 hidden): input, forget, candidate, output."""
    i, f, g, o = gates.chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


class Order:
    """Rows of a batch by falling length, so that at each step the live ones come first.

    A step computes a few finished rows beside the live ones, up to a multiple of ROUND, and nobody reads their outputs.

    Attributes:
        image: (rows,) image of each row.
        live: rows computed at each step; F is their sum.
        row: (F,) row of each word fed, one step after another: the first live[0] rows, the first live[1] ...
        inputs: (F,) the words fed, in that order; padding for finished rows.
        row_major: (M,) which of the steps' outputs, one after another, belong to the M words to be predicted, in
            row-major order of the tokens.
    """

    def __init__(self, tokens: Tensor) -> None:
        images, captions, _ = tokens.shape
        flat = tokens.flatten(0, 1)
        wanted = flat[:, 1:] != PAD
        lengths = wanted.sum(1)
        order = lengths.argsort(descending=True, stable=True)
        device = tokens.device
        self.image = torch.arange(images, device=device).repeat_interleave(captions)[order]
        self.live = [min(-(-rows // ROUND) * ROUND, len(flat)) for rows in wanted.sum(0).tolist() if rows]
        starts = torch.tensor([0, *self.live], device=device).cumsum(0)[:-1]
        fed = torch.arange(len(flat), device=device) < torch.tensor(self.live, device=device)[:, None]
        self.row = fed.nonzero()[:, 1]
        self.inputs = flat[order, : len(starts)].t()[fed]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=device)
        self.row_major = (place[:, None] + starts)[wanted[:, : len(starts)]]


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


class UnrolledMix:
    """Weighted sums of values at many time steps.

    Args:
        values: (rows, positions, size); a step may ask for the first n rows only.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.detach().to(compute_dtype(values))
        self.tape = _Tape()
        self.token = _GatherMix.apply(values, self.tape)

    def __call__(self, weights: Tensor) -> Tensor:
        """weights (n, positions), n <= rows -> (n, size)."""
        weights = weights.to(self.values.dtype)
        return _StepMix.apply(weights, self.token, self.values, self.tape)  # type: ignore[no-any-return]


class _GatherMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, tape: _Tape) -> Tensor:
        ctx.tape, ctx.dtype, ctx.shape = tape, values.dtype, values.shape
        return values.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, None]:
        tape: _Tape = ctx.tape
        if not tape.grads:
            return None, None
        weights, grads = pad_sequence(tape.inputs), pad_sequence(tape.grads)  # (rows, steps, ...)
        summed = torch.bmm(weights.transpose(1, 2), grads).to(ctx.dtype)
        tape.inputs.clear()
        tape.grads.clear()
        return F.pad(summed, (0, 0, 0, 0, 0, ctx.shape[0] - len(summed))), None


class _StepMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, token: Tensor, values: Tensor, tape: _Tape) -> Tensor:
        ctx.save_for_backward(weights, values)
        ctx.tape = tape
        return torch.bmm(weights.unsqueeze(1), values[: len(weights)]).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,) = grads
        weights, values = ctx.saved_tensors
        ctx.tape.inputs.append(weights)
        ctx.tape.grads.append(grad)
        for_weights = torch.bmm(values[: len(grad)], grad.unsqueeze(-1)).squeeze(-1)
        return for_weights, grad.new_zeros(()), None, None
