"""Inception-V1 (GoogLeNet, Szegedy et al. 2015) as TensorFlow-slim builds it, without its classifier.

Slim differs from the paper: batch norm after every convolution, and 3x3 in place of 5x5 in the third branch. The
Supermask Pruning paper attends over `Mixed_4f` (14x14x832) and starts the decoder from the pooled `Mixed_5c` (1024).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.layers import Conv, Features, flatten, pad_same, pool

# 1x1 | 3x3 reduce, 3x3 | second 3x3 reduce, 3x3 | pool projection
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {"4b": 3, "5b": 2}  # window of the stride-2 max pooling before a block


def max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Max pooling under TensorFlow's SAME rule; padding never wins."""
    return F.max_pool2d(pad_same(x, kernel, stride, value=float("-inf")), kernel, stride)


class Mixed(nn.Module):
    """Four branches side by side: 1x1; 1x1 then 3x3; 1x1 then 3x3; max pooling then 1x1."""

    def __init__(self, inputs: int, sizes: tuple[int, ...], norm: bool) -> None:
        super().__init__()
        one, reduce1, three1, reduce2, three2, projection = sizes
        self.branch0 = Conv(inputs, one, activation="relu", norm=norm)
        self.branch1_reduce = Conv(inputs, reduce1, activation="relu", norm=norm)
        self.branch1 = Conv(reduce1, three1, 3, activation="relu", norm=norm)
        self.branch2_reduce = Conv(inputs, reduce2, activation="relu", norm=norm)
        self.branch2 = Conv(reduce2, three2, 3, activation="relu", norm=norm)
        self.branch3 = Conv(inputs, projection, activation="relu", norm=norm)
        self.channels = one + three1 + three2 + projection

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.branch0(x),
            self.branch1(self.branch1_reduce(x)),
            self.branch2(self.branch2_reduce(x)),
            self.branch3(max_pool(x, 3, 1)),
        )
        return torch.cat(branches, dim=1)


class InceptionV1(nn.Module):
    """Images (N, 3, H, W) in -1..1 -> Features; the grid is `Mixed_4f` (stride 16) or `Mixed_5c` (stride 32)."""

    def __init__(self, stride: int = 16, norm: bool = False) -> None:
        super().__init__()
        self.conv1a = Conv(3, 64, 7, 2, activation="relu", norm=norm)
        self.conv2b = Conv(64, 64, activation="relu", norm=norm)
        self.conv2c = Conv(64, 192, 3, activation="relu", norm=norm)
        inputs = 192
        for name, sizes in MIXED.items():
            block = Mixed(inputs, sizes, norm)
            self.add_module(f"mixed_{name}", block)
            inputs = block.channels
        self.grid_block = {16: "4f", 32: "5c"}[stride]

    def forward(self, images: Tensor) -> Features:
        x = max_pool(self.conv1a(images), 3, 2)
        x = max_pool(self.conv2c(self.conv2b(x)), 3, 2)
        grid = x
        for name in MIXED:
            if name in POOL_BEFORE:
                x = max_pool(x, POOL_BEFORE[name], 2)
            x = self.get_submodule(f"mixed_{name}")(x)
            if name == self.grid_block:
                grid = x
        return Features(flatten(grid), pool(x))
