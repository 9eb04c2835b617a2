"""A plain convolutional encoder that learns from scratch in a few minutes.

Four 3x3 convolutions of stride 2 with batch norm. Without pretrained weights the deep chains of MobileNet need far more
images before anything comes through; this one is for small pictures and short runs.
"""

from torch import Tensor, nn

from laconic.models.layers import Conv, Features, flatten, pool

CHANNELS = (24, 48, 96, 128)


class ConvNet(nn.Module):
    """Images (N, 3, H, W) -> Features; the grid has stride 16, or 32 through a fifth convolution."""

    def __init__(self, stride: int = 16, norm: bool = False) -> None:
        super().__init__()
        channels = CHANNELS if stride == 16 else (*CHANNELS, CHANNELS[-1])
        inputs = 3
        for i, outputs in enumerate(channels):
            self.add_module(f"conv{i}", Conv(inputs, outputs, 3, 2, norm=norm))
            inputs = outputs
        self.layers = len(channels)

    def forward(self, images: Tensor) -> Features:
        x = images
        for i in range(self.layers):
            x = self.get_submodule(f"conv{i}")(x)
        return Features(flatten(x), pool(x))
