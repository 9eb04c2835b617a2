"""MobileNet-V1 (Howard et al. 2017) as a feature extractor; V2 is in laconic.models.inverted.

Module names equal those of the published weight files: `conv0`, `block<i>.depthwise`, `block<i>.pointwise`. Images are
RGB / 127.5 - 1.
"""

from torch import Tensor, nn

from laconic.models.layers import Conv, Features, flatten, pool

V1_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class SeparableBlock(nn.Module):
    """Depthwise 3x3, then pointwise 1x1, both with ReLU6 (V1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.depthwise = Conv(inputs, inputs, 3, stride, groups=inputs, norm=norm)
        self.pointwise = Conv(inputs, outputs, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier, never fewer than 8 (TensorFlow-slim's rule for V1)."""
    return max(int(channels * width), 8)


class MobileNetV1(nn.Module):
    """Images (N, 3, H, W) -> Features; the grid has stride 16 (`block11`) or 32 (`block13`).

    Source: arXiv 1704.04861, table 1.
    """

    def __init__(self, width: float = 1.0, stride: int = 32, norm: bool = False) -> None:
        super().__init__()
        channels = [scaled(c, width) for c in V1_CHANNELS]
        inputs = scaled(32, width)
        self.conv0 = Conv(3, inputs, 3, 2, norm=norm)
        for i, (outputs, s) in enumerate(zip(channels, V1_STRIDES, strict=True), start=1):
            self.add_module(f"block{i}", SeparableBlock(inputs, outputs, s, norm))
            inputs = outputs
        self.grid_block = {16: 11, 32: 13}[stride]

    def forward(self, images: Tensor) -> Features:
        x = self.conv0(images)
        grid = x
        for i in range(1, 14):
            x = self.get_submodule(f"block{i}")(x)
            if i == self.grid_block:
                grid = x
        return Features(flatten(grid), pool(x))
