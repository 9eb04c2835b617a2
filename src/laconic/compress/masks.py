"""Masks as parametrizations: weight in, masked weight out, on any parameter of any module.

A FixedMask is given, by magnitude or any other rule; a LearnedMask is learned with the weights.

`torch.nn.utils.parametrize` calls `forward(weight)` at every access of the parameter, so a mask here never draws at
an access: a LearnedMask keeps one draw until `redraw()`, which the Pruner calls once per training step (Algorithm 1
of arXiv 2110.03298). An LSTM cell unrolled over twenty time steps therefore sees one network, not twenty.

Knows nothing of sparsity targets, losses or optimizers.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from laconic.noise import LEVELS, noise16

Sampling = Literal["bernoulli", "round"]


def draw_bernoulli(probability: Tensor, seed: int) -> Tensor:
    """Independent 0/1 draws as bool, true with the given probability; the same for the same seed."""
    generator = torch.Generator(probability.device).manual_seed(seed)
    noise = noise16(probability.shape, probability.device, generator)
    return noise < probability.mul(LEVELS).sub_(LEVELS // 2).round_()


class _StraightThrough(torch.autograd.Function):
    """weight * keep; the gradient reaches the gates as if keep were the gates themselves (arXiv 1308.3432).

    With `slope` (the published form) it also passes the sigmoid: dL/dG = dL/dW' * W * s(G) (1 - s(G)).
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gates: Tensor, keep: Tensor, slope: bool) -> Tensor:
        ctx.save_for_backward(weight, gates, keep)
        ctx.slope = slope
        return weight * keep

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad,) = grads
        weight, gates, keep = ctx.saved_tensors
        for_weight = for_gates = None
        if ctx.needs_input_grad[0]:
            for_weight = grad * keep
        if ctx.needs_input_grad[1]:
            for_gates = grad * weight
            if ctx.slope:
                for_gates = sigmoid_slope(gates, for_gates)
        return for_weight, for_gates, None, None


def sigmoid_slope(gates: Tensor, grad: Tensor) -> Tensor:
    """grad * s(G) (1 - s(G)), in one pass."""
    return torch.ops.aten.sigmoid_backward(grad, torch.sigmoid(gates))  # type: ignore[no-any-return]


class FixedMask(nn.Module):
    """A mask that only its owner changes: weight * keep, in training and evaluation alike.

    Pruned weights get no gradient but keep their value, so a later mask can bring them back.

    Args:
        weight: the tensor to be masked.
        keep: bool, shape of the weight; None keeps everything.
    """

    keep: Tensor

    def __init__(self, weight: Tensor, keep: Tensor | None = None) -> None:
        super().__init__()
        ones = torch.ones_like(weight, dtype=torch.bool, requires_grad=False)
        self.register_buffer("keep", ones if keep is None else keep.to(weight.device, torch.bool).clone())

    def set(self, keep: Tensor) -> None:
        """Keeps the weights where `keep` is true."""
        self.keep.copy_(keep)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.keep


class LearnedMask(nn.Module):
    """A supermask (Zhou et al. 2019): one trainable gate per weight.

    Training multiplies the weight by a draw of Bernoulli(sigmoid(gates)) (or by its rounding), evaluation by
    Round(sigmoid(gates)), that is gates > 0.

    Args:
        weight: the tensor to be masked; gates take its shape, type and device.
        init: initial gate value m (5.0 in the paper: keep probability 0.993).
        sampling: "bernoulli" or "round".
        slope: whether the gates' gradient passes the sigmoid's derivative (the paper's form).

    Draws have their own seed, so processes that train one model together agree on the masks while each has a dropout
    of its own; `seed` is that of the next draw.
    """

    gates: nn.Parameter
    seed: Tensor

    def __init__(self, weight: Tensor, init: float, sampling: Sampling = "bernoulli", slope: bool = True) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.full_like(weight, init, dtype=torch.float32))
        self.register_buffer("seed", torch.randint(2**62, (), device="cpu").to(weight.device))
        self.sampling = sampling
        self.slope = slope
        self._draw: Tensor | None = None

    @property
    def keep(self) -> Tensor:
        """Bool tensor of the weights that evaluation keeps."""
        return self.gates.detach() > 0

    @torch.no_grad()
    def set(self, keep: Tensor) -> None:
        """Moves the gates that disagree with `keep` just across zero."""
        tiny = torch.finfo(self.gates.dtype).tiny
        self.gates.copy_(torch.where(keep, self.gates.clamp(min=tiny), self.gates.clamp(max=0)))

    def freeze(self, sampling: Sampling = "round") -> None:
        """The gates no longer learn; training uses what evaluation keeps, or goes on drawing from them."""
        self.gates.requires_grad_(False)
        self.gates.grad = None
        self.sampling = sampling

    def redraw(self) -> None:
        """Forgets the draw; the next access in training makes a new one."""
        self._draw = None

    def forward(self, weight: Tensor) -> Tensor:
        return _StraightThrough.apply(weight, self.gates, self._current(), self.slope)  # type: ignore[no-any-return]

    def _current(self) -> Tensor:
        if not self.training or self.sampling == "round":
            return self.keep
        if self._draw is None:
            # Also where a search in inference mode comes first: the backward pass must be able to keep the draw.
            with torch.inference_mode(False), torch.no_grad():
                self._draw = draw_bernoulli(torch.sigmoid(self.gates), int(self.seed))
                self.seed += 1
        return self._draw


Mask = FixedMask | LearnedMask
