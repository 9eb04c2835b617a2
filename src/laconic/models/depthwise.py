"""The backward pass of a strided depthwise convolution on a CPU, by way of one that it is fast at.

PyTorch's own gives the same gradients, but in bfloat16 it falls back to plain loops for the input's. A gradient with
zeros between its values and an ordinary depthwise convolution, of stride 1 and with the kernel turned round, compute
the same (docs/LOG.md, Training speed).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Padding = tuple[int, int, int, int]  # left, right, top, bottom, as in F.pad


def strided_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Padding) -> Tensor:
    """F.conv2d(F.pad(x, padding), weight, bias, stride, groups=channels), which can be differentiated once.

    x (N, C, H, W), weight (C, 1, k, k), bias (C,) or None.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _StridedDepthwise.apply(x, weight, bias, stride, padding)  # type: ignore[no-any-return]


class _StridedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Padding) -> Tensor:
        padded = F.pad(x, padding)
        ctx.save_for_backward(padded, weight)
        ctx.stride, ctx.padding, ctx.size, ctx.biased = stride, padding, x.shape[2:], bias is not None
        return F.conv2d(padded, weight, bias, stride, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        padded, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        grad_x = _input_gradient(grad, weight, ctx.stride, ctx.padding, ctx.size) if for_x else None
        channels, step = len(weight), [ctx.stride, ctx.stride]
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            padded,
            weight,
            [channels] if ctx.biased else None,
            step,
            [0, 0],
            [1, 1],
            False,
            [0, 0],
            channels,
            [False, for_weight, for_bias],
        )
        return grad_x, grad_weight, grad_bias, None, None


def _input_gradient(grad: Tensor, weight: Tensor, stride: int, padding: Padding, size: tuple[int, int]) -> Tensor:
    """dL/dx[r] = sum over a of w[a] up[r + before - a], where up[stride * i] = dL/dy[i] and all else is zero."""
    images, channels, rows, columns = grad.shape
    kernel = weight.shape[-1]
    up = grad.new_zeros(images, size[0] + kernel - 1, size[1] + kernel - 1, channels).permute(0, 3, 1, 2)
    left, _, top, _ = padding
    first_row, first_column = kernel - 1 - top, kernel - 1 - left
    up[:, :, first_row::stride, first_column::stride][:, :, :rows, :columns] = grad
    return F.conv2d(up, weight.flip(2, 3), groups=channels)
