"""A mask as a parametrization: weight in, masked weight out, on any parameter of any module.

`torch.nn.utils.parametrize` calls `forward(weight)` at every access of the parameter, so a mask here never draws at
an access: a LearnedMask keeps one draw until `redraw()`, which the Pruner calls once per training step (Algorithm 1
of arXiv 2110.03298). An LSTM cell unrolled over twenty time steps therefore sees one network, not twenty.

Knows nothing of sparsity targets, losses or optimizers.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

Sampling = Literal["bernoulli", "round"]

# Noise is drawn four 16-bit numbers to a 64-bit word, which costs far less than float32 noise, and the keep
# probability is still resolved to 1 / 65536.
NOISE_LEVELS = 65536


def draw_bernoulli(probability: Tensor) -> Tensor:
    """Independent 0/1 draws as bool, true with the given probability, from torch's default generator."""
    words = torch.empty(-(-probability.numel() // 4), dtype=torch.int64, device=probability.device)
    words.random_(-(2**63), None)
    noise = words.view(torch.int16)[: probability.numel()].view(probability.shape)
    return noise < probability.mul(NOISE_LEVELS).sub_(NOISE_LEVELS // 2).round_()


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


class LearnedMask(nn.Module):
    """A supermask (Zhou et al. 2019): one trainable gate per weight.

    Training multiplies the weight by a draw of Bernoulli(sigmoid(gates)) (or by its rounding), evaluation by
    Round(sigmoid(gates)), that is gates > 0.

    Args:
        weight: the tensor to be masked; gates take its shape, type and device.
        init: initial gate value m (5.0 in the paper: keep probability 0.993).
        sampling: "bernoulli" or "round".
        slope: whether the gates' gradient passes the sigmoid's derivative (the paper's form).
    """

    gates: nn.Parameter

    def __init__(self, weight: Tensor, init: float, sampling: Sampling = "bernoulli", slope: bool = True) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.full_like(weight, init, dtype=torch.float32))
        self.sampling = sampling
        self.slope = slope
        self._draw: Tensor | None = None

    @property
    def keep(self) -> Tensor:
        """Bool tensor of the weights that evaluation keeps."""
        return self.gates.detach() > 0

    def freeze(self) -> None:
        """From now on the mask is what evaluation keeps, in training too, and the gates no longer learn."""
        self.gates.requires_grad_(False)
        self.gates.grad = None

    def redraw(self) -> None:
        """Forgets the draw; the next access in training makes a new one."""
        self._draw = None

    def forward(self, weight: Tensor) -> Tensor:
        return _StraightThrough.apply(weight, self.gates, self._current(), self.slope)  # type: ignore[no-any-return]

    def _current(self) -> Tensor:
        if not self.training or self.sampling == "round" or not self.gates.requires_grad:
            return self.keep
        if self._draw is None:
            with torch.no_grad():
                self._draw = draw_bernoulli(torch.sigmoid(self.gates))
        return self._draw
