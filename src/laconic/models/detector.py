"""Detectors as encoders: regions of an image, found, and what is seen in them.

The networks are those of laconic.spec.detectors; names of parameters equal those of the published weight files.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.detections import best_boxes, decode, mean_within, take
from laconic.models.layers import Conv, Features, pool
from laconic.spec.detectors import DetectorFacts, Seen

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Detector(nn.Module):
    """Images (N, 3, H, W), H and W multiples of 32, -> Features of `regions` boxes, the best first.

    The first region is the whole image. The feature of a region is the mean of the backbone's maps within its box,
    those of stride 32 or, with `stride` 16, those of strides 16 and 32, and the probability of each class there: that
    of the cell that found the box, or the highest of the image for the whole. `pooled` is the mean of the last map.

    Raises ValueError for a batch norm, which detectors do not have: none is trained here.
    """

    def __init__(self, facts: DetectorFacts, stride: int = 32, norm: bool = False, regions: int = 36) -> None:
        super().__init__()
        if norm:
            raise ValueError("detectors have no batch norm; build them with norm=False")
        self.facts, self.stride, self.regions = facts, stride, regions
        widths = _Widths()
        facts.network(widths, 3)
        for name, layer in widths.layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Features:
        seen = self.see(images)
        boxes, scores = decode(seen.levels, self.facts.centre, *images.shape[2:])
        place, _ = best_boxes(boxes, scores, self.regions - 1)
        whole = boxes.new_tensor(WHOLE).expand(images.shape[0], 1, 4)
        boxes = torch.cat([whole, take(boxes, place)], 1)
        classes = torch.cat([scores.amax(1, keepdim=True), take(scores, place)], 1)
        gains, strides = self.facts.gains, [stride for stride in sorted(seen.maps) if stride >= self.stride]
        within = [gains[stride] * mean_within(seen.maps[stride], boxes) for stride in strides]
        return Features(torch.cat([*within, classes], 2), gains[32] * pool(seen.maps[32]), boxes)

    def see(self, images: Tensor) -> Seen[Tensor]:
        """Maps and the logits of classes and distances, of images as `forward` takes them."""
        return self.facts.network(_Tensors(self), images.flip(1) if self.facts.swaps else images)


class _Centred(Conv):
    """A convolution that is padded alike on all sides, as PyTorch's networks are."""

    def _convolve(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.kernel_size[0] // 2, groups=self.groups)


class _Widths:
    """A network's layers by name, found by following the number of channels through it."""

    def __init__(self) -> None:
        self.layers: dict[str, Conv] = {}

    def conv(self, x: int, name: str, outputs: int, kernel: int = 1, stride: int = 1, activation: str = "none") -> int:
        self.layers[name] = _Centred(x, outputs, kernel, stride, activation=activation)
        return outputs

    def depthwise(self, x: int, name: str, kernel: int = 3, stride: int = 1, activation: str = "none") -> int:
        self.layers[name] = _Centred(x, x, kernel, stride, groups=x, activation=activation)
        return x

    def excite(self, x: int, names: tuple[str, str]) -> int:
        self.layers[names[0]] = _Centred(x, x // 4, activation="relu")
        self.layers[names[1]] = _Centred(x // 4, x, activation="hardsigmoid")
        return x

    def max_pool(self, x: int) -> int:
        return x

    def join(self, parts: Sequence[int]) -> int:
        return sum(parts)

    def halves(self, x: int) -> tuple[int, int]:
        return x // 2, x // 2

    def shuffle(self, x: int) -> int:
        return x

    def double(self, x: int, smooth: bool) -> int:
        return x

    def add(self, x: int, y: int) -> int:
        return x


class _Tensors:
    """A network on tensors (N, channels, rows, columns), with the layers of a Detector."""

    def __init__(self, layers: nn.Module) -> None:
        self.layer = layers.get_submodule

    def conv(
        self, x: Tensor, name: str, outputs: int, kernel: int = 1, stride: int = 1, activation: str = "none"
    ) -> Tensor:
        return self.layer(name)(x)  # type: ignore[no-any-return]

    def depthwise(self, x: Tensor, name: str, kernel: int = 3, stride: int = 1, activation: str = "none") -> Tensor:
        return self.layer(name)(x)  # type: ignore[no-any-return]

    def excite(self, x: Tensor, names: tuple[str, str]) -> Tensor:
        factors = x.mean(dim=(2, 3), keepdim=True)
        for name in names:
            factors = self.layer(name)(factors)
        return x * factors

    def max_pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, 1)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(parts), 1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, 1)
        return first, second

    def shuffle(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-any-return]

    def double(self, x: Tensor, smooth: bool) -> Tensor:
        if smooth:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y
