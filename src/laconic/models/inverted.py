"""Networks of inverted residuals as feature extractors: MobileNet-V2 and EfficientNet-Lite.

Their layers are numbers in laconic.spec.inverted. Module names equal those of the published weight files: `conv0`,
`block<i>.expand / depthwise / project` and `head`.
"""

from torch import Tensor, nn

from laconic.models.layers import Conv, Features, flatten, pool
from laconic.spec.inverted import HEAD, STEM, Block, Stage, blocks_of, last_strided


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3 or 5x5, linear projection 1x1; residual where shapes agree."""

    def __init__(self, block: Block, norm: bool) -> None:
        super().__init__()
        hidden = block.hidden
        self.expand = Conv(block.inputs, hidden, norm=norm) if block.expands else None
        self.depthwise = Conv(hidden, hidden, block.kernel, block.stride, groups=hidden, norm=norm)
        self.project = Conv(hidden, block.outputs, activation="none", norm=norm)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        return self.shrink(self.grow(x), x)

    def grow(self, x: Tensor) -> Tensor:
        """The expanded activations, before the depthwise convolution takes its stride."""
        return x if self.expand is None else self.expand(x)  # type: ignore[no-any-return]

    def shrink(self, grown: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(grown))
        return x + y if self.residual else y


class InvertedNet(nn.Module):
    """Images (N, 3, H, W) -> Features; the grid has stride 32 (`head`), or 16: what the last block that strides expands
    to. Source: laconic.spec.inverted.
    """

    def __init__(self, stages: tuple[Stage, ...], stride: int = 32, norm: bool = False) -> None:
        super().__init__()
        self.conv0 = Conv(3, STEM, 3, 2, norm=norm)
        blocks = blocks_of(stages)
        for i, block in enumerate(blocks):
            self.add_module(f"block{i}", InvertedResidual(block, norm))
        self.head = Conv(blocks[-1].outputs, HEAD, norm=norm)
        self.blocks, self.middle, self.stride = len(blocks), last_strided(blocks), stride

    def forward(self, images: Tensor) -> Features:
        x = self.conv0(images)
        middle = x
        for i in range(self.blocks):
            block: InvertedResidual = self.get_submodule(f"block{i}")  # type: ignore[assignment]
            grown = block.grow(x)
            if i == self.middle:
                middle = grown
            x = block.shrink(grown, x)
        x = self.head(x)
        return Features(flatten(middle if self.stride == 16 else x), pool(x))
