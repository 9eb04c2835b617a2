"""Learned step sizes (LSQ, Esser et al. 2020, arXiv 1902.08153): a weight is a whole number of steps, and both learn.

    quantised = round(clip(weight / step, -most, most)) * step

The grid is symmetric, so zero is always on it and what a mask has removed stays removed: where LSQ counts weights,
non-zeros are counted here (at 95 % sparsity the plain mean would make the first step twenty times too small).

The functions are the arithmetic; LearnedStep is the transform that stands behind the masks of a weight. It knows
nothing of optimizers.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from laconic.compress.piecewise import pieces
from laconic.compress.stacking import QUANTISER, Transform

ON_GRID = 1e-5  # relative: a step is held as its logarithm, which rounds it


def largest_code(bits: int) -> int:
    """Of a symmetric grid of so many bits, sign included: 1 of 2 bits, 127 of 8."""
    return (1 << bits - 1) - 1


def first_step(weight: Tensor, most: int, *, per_row: bool = False) -> Tensor:
    """2 mean|w| / sqrt(most) over the non-zeros (Esser et al., section 2.1); 1 where there are none.

    A scalar, or with `per_row` one for each row, shape (rows, 1, ...).
    """
    magnitude = weight.abs()
    count = _sum(weight != 0, per_row)
    mean = _sum(magnitude, per_row) / count.clamp(min=1)
    return _positive(2 * mean / math.sqrt(most), count)


def covering_step(weight: Tensor, most: int, *, per_row: bool = False) -> Tensor:
    """max|w| / most, with which nothing is clipped; 1 where all is zero. Shaped as that of `first_step`."""
    magnitude = weight.abs()
    largest = magnitude.flatten(1).amax(1).view(_rows(weight)) if per_row else magnitude.amax()
    return _positive(largest / most, largest)


def nearest(weight: Tensor, step: Tensor, most: int, least: int | None = None) -> Tensor:
    """The nearest value on the grid to each weight, halves to even, codes from `least` (-most) to `most`; no gradient.

    weight: (rows, ...); step: a scalar, or (rows, 1, ...).
    """
    quantised = torch.empty_like(weight)
    for result, some, size in pieces(quantised, weight, _by_row(step, weight)):
        torch.div(some, size, out=result)
        result.clamp_(-most if least is None else least, most).round_().mul_(size)
    return quantised


def round_to_steps(weight: Tensor, step: Tensor, most: int, least: int | None = None, *, held: bool = False) -> Tensor:
    """`nearest`, with the gradients of LSQ (Esser et al., equations 3 and 5).

    That of a weight passes inside the grid and is none outside. That of a step sums code - weight / step inside and
    the outermost code outside, times 1 / sqrt(non-zeros x most).

    Args:
        held: weights that are zero get no gradient, so they stay zero, and an optimizer's moments of them too.
    """
    return _Round.apply(weight, step, most, -most if least is None else least, held)  # type: ignore[no-any-return]


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, most: int, least: int, held: bool) -> Tensor:
        ctx.save_for_backward(weight, step)
        ctx.most, ctx.least, ctx.held = most, least, held
        return nearest(weight, step, most, least)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        weight, step = ctx.saved_tensors
        for_weight, sums = torch.empty_like(weight), []
        for result, above, some, size in pieces(for_weight, grad, weight, _by_row(step, weight)):
            exact = some / size
            inside = (exact > ctx.least) & (exact < ctx.most)
            change = exact.clamp(ctx.least, ctx.most).round_().sub_(exact.mul_(inside))
            sums.append(change.mul_(above).flatten(1).sum(1))
            torch.mul(above, inside & (some != 0) if ctx.held else inside, out=result)
        for_step = torch.cat(sums).view(_rows(weight)) if step.ndim else torch.cat(sums).sum()
        count = _sum(weight != 0, bool(step.ndim)).clamp(min=1)
        return for_weight, for_step / (count * ctx.most).to(for_step.dtype).sqrt(), None, None, None


class _Untouched(torch.autograd.Function):
    """The weight itself; the step stays in the graph, for processes that wait for every parameter, without gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        return grads[0], None


class LearnedStep(Transform):
    """A quantiser that learns its step; what is trained is the step's logarithm, so it stays positive.

    Args:
        weight: the tensor to be quantised, float32, of two or more dimensions.
        bits: of a code, sign included, 2 to 8.
        per_row: one step for each row instead of one for all.

    Attributes:
        on: whether it quantises; until then weights pass as they are.
    """

    order: ClassVar[int] = QUANTISER

    def __init__(self, weight: Tensor, bits: int, per_row: bool = False) -> None:
        super().__init__()
        self.bits, self.most, self.per_row, self.on = bits, largest_code(bits), per_row, False
        shape = _rows(weight) if per_row else ()
        self.log_step = nn.Parameter(torch.zeros(shape, dtype=torch.float32, device=weight.device))

    @property
    def step(self) -> Tensor:
        """As the grid has it now, detached: a scalar, or (rows, 1, ...)."""
        return self.log_step.detach().exp()

    @torch.no_grad()
    def begin(self, weight: Tensor, known: float | None = None) -> None:
        """Takes the first step from the weight as it comes: LSQ's, or a finer one that still covers all of it.

        `known` is taken in its place where the weight lies on the grid of that step.
        """
        self.on = True
        if known is not None and not self.per_row:
            self.log_step.fill_(math.log(known))
            if torch.allclose(nearest(weight, self.step, self.most), weight, rtol=ON_GRID, atol=0.0):
                return
        options = (rule(weight, self.most, per_row=self.per_row) for rule in (first_step, covering_step))
        self.log_step.copy_(torch.minimum(*options).log())

    def forward(self, weight: Tensor) -> Tensor:
        if not self.on:
            return _Untouched.apply(weight, self.log_step)  # type: ignore[no-any-return]
        if not torch.is_grad_enabled():
            return nearest(weight, self.step, self.most)
        # What is no leaf has passed a mask: that one says which gradients reach a pruned weight.
        return round_to_steps(weight, self.log_step.exp(), self.most, held=weight.is_leaf)


def _rows(weight: Tensor) -> tuple[int, ...]:
    """Shape of what there is one of for each row."""
    return (len(weight), *[1] * (weight.ndim - 1))


def _by_row(step: Tensor, weight: Tensor) -> Tensor:
    return step.expand(_rows(weight))


def _sum(values: Tensor, per_row: bool) -> Tensor:
    return values.flatten(1).sum(1).view(_rows(values)) if per_row else values.sum()


def _positive(step: Tensor, filled: Tensor) -> Tensor:
    return torch.where(filled > 0, step.clamp(min=torch.finfo(step.dtype).tiny), 1.0)
