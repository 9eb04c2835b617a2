"""Building blocks of the encoders: convolutions with TensorFlow SAME padding and optional batch norm.

Knows nothing of any particular network. Weights published for TensorFlow need its padding rule: the extra
row or column of an odd padding goes after the image, whereas PyTorch pads both sides alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.depthwise import strided_depthwise

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "relu": F.relu,
    "leaky": partial(F.leaky_relu, negative_slope=0.1),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "none": lambda x: x,
}


@dataclass(frozen=True)
class Features:
    """What an encoder, or a region detector, hands to a captioner.

    Attributes:
        grid: (images, positions, channels), what to attend over: a map row by row, or regions.
        pooled: (images, pooled channels), the global average of the last layer, or of the regions.
        boxes: (images, positions, 4) x1, y1, x2, y2 of each position relative to the image (0..1); None: the
            positions are the cells of a square map, see `cell_boxes`.
        valid: (images, positions) bool, false where an image has fewer regions than others; None: all are.
    """

    grid: Tensor
    pooled: Tensor
    boxes: Tensor | None = None
    valid: Tensor | None = None

    def __len__(self) -> int:
        return len(self.grid)

    def to(self, device: torch.device) -> "Features":
        return self._each(lambda tensor: tensor.to(device))

    def __getitem__(self, rows: Tensor | slice) -> "Features":
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Features":
        held = (self.grid, self.pooled, self.boxes, self.valid)
        return Features(*(None if tensor is None else change(tensor) for tensor in held))  # type: ignore[arg-type]


def cell_boxes(positions: int) -> Tensor:
    """Boxes (positions, 4) of the cells of a square map, row by row, relative to the image."""
    side = math.isqrt(positions)
    if side * side != positions:
        raise ValueError(f"{positions} positions are no square map; give Features with boxes")
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    corner = torch.stack([columns, rows, columns + 1, rows + 1], -1)
    return corner.reshape(positions, 4) / side


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after one axis under TensorFlow's SAME rule."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pads (..., height, width) so that a stride-s window sees ceil(size / s) positions."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    if not (top or bottom or left or right):
        return x
    return F.pad(x, (left, right, top, bottom), value=value)


def pool(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), mean over positions."""
    return x.mean(dim=(2, 3))


def flatten(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), positions row by row."""
    return x.flatten(2).transpose(1, 2)


class Conv(nn.Conv2d):
    """Convolution, batch norm unless folded, activation.

    Parameters are `weight` (out, in / groups, k, k) and `bias`; with `norm` the bias lives in the batch norm
    until `fold_batch_norm` moves scale and shift into weight and bias.
    """

    norm: nn.BatchNorm2d | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu6",
        norm: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=not norm)
        # Kaiming's fan-out rule, per group: nn.init counts all outputs of a depthwise kernel
        nn.init.normal_(self.weight, std=math.sqrt(2 * groups / (kernel * kernel * outputs)))
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3) if norm else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self._convolve(x)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](x)

    def _convolve(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x.shape[-2], kernel, stride)
        left, right = same_padding(x.shape[-1], kernel, stride)
        learning = torch.is_grad_enabled() and x.requires_grad
        if learning and stride > 1 and self.groups == self.in_channels == self.out_channels and x.device.type == "cpu":
            return strided_depthwise(x, self.weight, self.bias, stride, (left, right, top, bottom))
        if top == bottom == left == right:
            return F.conv2d(x, self.weight, self.bias, self.stride, top, groups=self.groups)
        return F.conv2d(pad_same(x, kernel, stride), self.weight, self.bias, self.stride, groups=self.groups)


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> None:
    """Moves every batch norm's scale and shift into its convolution; evaluation results stay the same.

    Raises TypeError for a batch norm that is not the `norm` of a Conv, or has no running statistics.
    """
    for conv in module.modules():
        if not isinstance(conv, Conv) or conv.norm is None:
            continue
        norm = conv.norm
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("a batch norm without running statistics cannot be folded")
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        conv.weight.mul_(scale[:, None, None, None])
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
        conv.norm = None
    for name, other in module.named_modules():
        if isinstance(other, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"batch norm {name!r} belongs to no Conv, so it cannot be folded; make it one's norm")
