"""Masks as parametrizations: weight in, masked weight out, on any parameter of any module.

A FixedMask is given, by magnitude or any other rule; a LearnedMask is learned with the weights.

`torch.nn.utils.parametrize` calls `forward(weight)` at every access of the parameter, so a mask here never draws at
an access: a LearnedMask keeps one draw until `redraw()`, which the Pruner calls once per training step (Algorithm 1
of arXiv 2110.03298). An LSTM cell unrolled over twenty time steps therefore sees one network, not twenty.

Knows nothing of sparsity targets, losses or optimizers.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from laconic.compress.masked.gating import add_slope, draw_bernoulli, multiply, straight_through
from laconic.compress.stacking import MASK, Transform

Sampling = Literal["bernoulli", "round"]

CAST_FROM = 1 << 17  # weights of a matrix from which on a product in autocast's type saves more than the cast costs


class _StraightThrough(torch.autograd.Function):
    """weight * keep; the gradient reaches the gates as if keep were the gates themselves (arXiv 1308.3432).

    With the mask's `slope` (the published form) it also passes the sigmoid: dL/dG = dL/dW' * W * s(G) (1 - s(G)).
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gates: Tensor, keep: Tensor, mask: "LearnedMask") -> Tensor:
        ctx.save_for_backward(weight, gates, keep)
        ctx.mask = mask
        return multiply(weight, keep, torch.empty_like(weight, dtype=mask.product_type(weight)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad,) = grads
        weight, gates, keep = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        grad_weight = torch.empty_like(weight) if wanted[0] else None
        # Masks that stand still leave the gates in the graph: processes that train together wait for all parameters
        # that were there at the start, and are content to hear that there is no gradient.
        grad_gates = ctx.mask.empty_gradient() if wanted[1] and not ctx.mask.still else None
        straight_through(grad, weight, gates, keep, grad_weight, grad_gates, ctx.mask.slope)
        return grad_weight, grad_gates, None, None


class FixedMask(Transform):
    """A mask that only its owner changes: weight * keep, in training and evaluation alike.

    Pruned weights get a gradient of zero and are kept, so a later mask can bring them back. What the optimizer adds
    without a gradient, such as momentum and weight decay, still moves them.

    Args:
        weight: the tensor to be masked.
        keep: bool, shape of the weight; None keeps everything.
    """

    order: ClassVar[int] = MASK
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


class LearnedMask(Transform):
    """A supermask (Zhou et al. 2019): one trainable gate per weight.

    Training multiplies the weight by a draw of Bernoulli(sigmoid(gates)) (or by its rounding), evaluation by
    Round(sigmoid(gates)), that is gates > 0.

    Args:
        weight: the tensor to be masked; gates take its shape, type and device.
        init: initial gate value m (5.0 in the paper: keep probability 0.993).
        sampling: "bernoulli" or "round".
        slope: whether the gates' gradient passes the sigmoid's derivative (the paper's form).

    Attributes:
        products: nothing but matrix products reads the weight. Where autocast is on, the masked weight of a large
            matrix then has the type that autocast would give it anyway.
        still: the gates do not learn (any longer), whatever `requires_grad` says of them.

    Draws have their own seed, so processes that train one model together agree on the masks while each has a dropout
    of its own; `seed` is that of the next draw.
    """

    order: ClassVar[int] = MASK
    gates: nn.Parameter
    seed: Tensor

    def __init__(self, weight: Tensor, init: float, sampling: Sampling = "bernoulli", slope: bool = True) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.full_like(weight, init, dtype=torch.float32))
        self.register_buffer("seed", torch.randint(2**62, (), device="cpu").to(weight.device))
        self.sampling = sampling
        self.slope = slope
        self.products = False
        self.still = False
        self._spent: Tensor | None = None
        self._draw: Tensor | None = None
        self._stale = False

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
        self.still = True
        self.gates.grad = self._spent = None
        self.sampling = sampling

    def unfreeze(self, sampling: Sampling) -> None:
        """The gates learn again, under draws or their rounding."""
        self.still = False
        self.sampling = sampling

    def redraw(self) -> None:
        """Forgets the draw; the next access in training makes a new one, in the same memory."""
        self._stale = True

    def add_gradient(self, factor: Tensor) -> bool:
        """Adds factor * s(G) (1 - s(G)) to the gates' gradient, factor a scalar; whether all of that is finite then."""
        if self.gates.grad is None:
            self.gates.grad = self.empty_gradient().zero_()
        return add_slope(self.gates.detach(), factor, self.gates.grad)

    def forget_gradient(self) -> None:
        """The gradient has been used; the next one is written into its memory."""
        if self.gates.grad is not None:
            self._spent, self.gates.grad = self.gates.grad, None

    def empty_gradient(self) -> Tensor:
        """Memory for a gradient of the gates, whose owner the caller becomes."""
        spent, self._spent = self._spent, None
        return torch.empty_like(self.gates) if spent is None else spent

    def product_type(self, weight: Tensor) -> torch.dtype:
        """Type of the masked weight."""
        kind = weight.device.type
        if not self.products or weight.numel() < CAST_FROM or weight.dtype != torch.float32:
            return weight.dtype
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training and torch.jit.is_tracing():  # type: ignore[attr-defined]  # in operations that others know
            return weight * self.keep
        return _StraightThrough.apply(weight, self.gates, self._current(), self)  # type: ignore[no-any-return]

    def _current(self) -> Tensor:
        if not self.training or self.sampling == "round":
            return self.keep
        if self._draw is None or self._stale:
            # Also where a search in inference mode comes first: the backward pass must be able to keep the draw.
            with torch.inference_mode(False), torch.no_grad():
                self._draw = draw_bernoulli(self.gates, int(self.seed), self._draw)
                self.seed += 1
            self._stale = False
        return self._draw


Mask = FixedMask | LearnedMask
