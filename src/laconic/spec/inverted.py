"""Networks of inverted residuals, layer by layer: MobileNet-V2 and EfficientNet-Lite. Knows no modules.

Both are a 3x3 convolution of stride 2 (`conv0`), blocks that expand, filter each channel and project (`block<i>`), and
a 1x1 convolution (`head`). The torch modules, the engine's rules and the table of encoders are made of these numbers.
"""

import math
from typing import NamedTuple

STEM = 32  # channels of conv0
HEAD = 1280


class Stage(NamedTuple):
    """Blocks with as many output channels.

    Attributes:
        expansion: channels of a block's depthwise convolution over those of its input.
        channels: that its blocks give.
        repeats: how many blocks.
        stride: of the first block; that of the others is 1.
        kernel: side of the depthwise kernels.
    """

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int = 3


class Block(NamedTuple):
    """One inverted residual; see Stage. `hidden` are the channels of its depthwise convolution."""

    inputs: int
    hidden: int
    outputs: int
    stride: int
    kernel: int

    @property
    def expands(self) -> bool:
        """Whether it has a layer `expand`."""
        return self.hidden != self.inputs

    @property
    def residual(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.inputs == self.outputs


# Sandler et al. 2018, arXiv 1801.04381, table 2; width 1.0
MOBILENET_V2 = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
# EfficientNet-B0, Tan and Le 2019, arXiv 1905.11946, table 1
EFFICIENTNET = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1),
)


def efficientnet_lite(width: float, depth: float) -> tuple[Stage, ...]:
    """EfficientNet-Lite (Google 2020): an EfficientNet with ReLU6, without squeeze and excitation.

    `width` multiplies channels, rounded to a multiple of 8 and by a tenth down at most; `depth` multiplies blocks,
    rounded up, but for the first and the last stage. Neither changes `conv0` and `head`.
    """
    last = len(EFFICIENTNET) - 1
    return tuple(
        stage._replace(
            channels=_rounded(stage.channels * width),
            repeats=stage.repeats if i in (0, last) else math.ceil(stage.repeats * depth),
        )
        for i, stage in enumerate(EFFICIENTNET)
    )


def _rounded(channels: float) -> int:
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


INVERTED: dict[str, tuple[Stage, ...]] = {
    "mobilenet_v2": MOBILENET_V2,
    "efficientnet_lite0": efficientnet_lite(1.0, 1.0),
    "efficientnet_lite1": efficientnet_lite(1.0, 1.1),
    "efficientnet_lite2": efficientnet_lite(1.1, 1.2),
}


def blocks_of(stages: tuple[Stage, ...]) -> list[Block]:
    """The blocks of all stages, in order."""
    blocks: list[Block] = []
    inputs = STEM
    for expansion, channels, repeats, first, kernel in stages:
        for r in range(repeats):
            blocks.append(Block(inputs, inputs * expansion, channels, first if r == 0 else 1, kernel))
            inputs = channels
    return blocks


def last_strided(blocks: list[Block]) -> int:
    """The block that takes the grid from stride 16 to 32: what it expands to is the last layer of stride 16."""
    return max(i for i, block in enumerate(blocks) if block.stride > 1)
