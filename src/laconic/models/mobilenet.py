"""MobileNet-V1 (Howard et al. 2017) and V2 (Sandler et al. 2018) as feature extractors.

Module names equal those of the published weight files: `conv0`, `block<i>.depthwise`, `block<i>.pointwise` (V1),
`block<i>.expand / depthwise / project` and `head` (V2). Images are RGB / 127.5 - 1.
"""

from torch import Tensor, nn

from laconic.models.layers import Conv, Features

V1_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# expansion, output channels, repeats, stride of the first
V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class SeparableBlock(nn.Module):
    """Depthwise 3x3, then pointwise 1x1, both with ReLU6 (V1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.depthwise = Conv(inputs, inputs, 3, stride, groups=inputs, norm=norm)
        self.pointwise = Conv(inputs, outputs, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, linear projection 1x1; residual where shapes agree (V2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, norm: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = Conv(inputs, hidden, norm=norm) if expansion > 1 else None
        self.depthwise = Conv(hidden, hidden, 3, stride, groups=hidden, norm=norm)
        self.project = Conv(hidden, outputs, activation="none", norm=norm)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(self.grow(x), x)

    def grow(self, x: Tensor) -> Tensor:
        """The expanded activations, before the depthwise convolution takes its stride."""
        return x if self.expand is None else self.expand(x)  # type: ignore[no-any-return]

    def shrink(self, grown: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(grown))
        return x + y if self.residual else y


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier, never fewer than 8 (TensorFlow-slim's rule for V1)."""
    return max(int(channels * width), 8)


def pool(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C), mean over positions."""
    return x.mean(dim=(2, 3))


def flatten(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), positions row by row."""
    return x.flatten(2).transpose(1, 2)


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


class MobileNetV2(nn.Module):
    """Images (N, 3, H, W) -> Features; the grid has stride 16 (`block13.expand`) or 32 (`head`).

    Source: arXiv 1801.04381, table 2; width 1.0.
    """

    def __init__(self, stride: int = 32, norm: bool = False) -> None:
        super().__init__()
        self.conv0 = Conv(3, 32, 3, 2, norm=norm)
        inputs, i = 32, 0
        for expansion, outputs, repeats, first in V2_STAGES:
            for r in range(repeats):
                block = InvertedResidual(inputs, outputs, first if r == 0 else 1, expansion, norm)
                self.add_module(f"block{i}", block)
                inputs, i = outputs, i + 1
        self.head = Conv(inputs, 1280, norm=norm)
        self.blocks, self.stride = i, stride

    def forward(self, images: Tensor) -> Features:
        x = self.conv0(images)
        middle = x
        for i in range(self.blocks):
            block: InvertedResidual = self.get_submodule(f"block{i}")  # type: ignore[assignment]
            grown = block.grow(x)
            if i == 13:  # the last layer at stride 16
                middle = grown
            x = block.shrink(grown, x)
        x = self.head(x)
        return Features(flatten(middle if self.stride == 16 else x), pool(x))
