"""A small VGG (Simonyan, Zisserman 2014, arXiv 1409.1556), which learns what it sees from scratch in minutes.

One 3x3 convolution a stage, at full resolution, with batch norm and ReLU, then a max pooling that halves the side.
On generated scenes it names shapes far sooner than convolutions that stride (docs/log/demo.md).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.layers import Conv, Features, flatten, pool

CHANNELS = (16, 32, 64, 128)


class SmallVGG(nn.Module):
    """Images (N, 3, H, W) -> Features; the grid has stride 16, or 32 through a fifth stage."""

    def __init__(self, stride: int = 16, norm: bool = False) -> None:
        super().__init__()
        inputs = 3
        self.stages = nn.ModuleList()
        for outputs in CHANNELS if stride == 16 else (*CHANNELS, CHANNELS[-1]):
            self.stages.append(Conv(inputs, outputs, 3, activation="relu", norm=norm))
            inputs = outputs

    def forward(self, images: Tensor) -> Features:
        x = images
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2, ceil_mode=True)
        return Features(flatten(x), pool(x))
