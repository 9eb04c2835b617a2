"""Detectors of COCO's 80 classes, layer by layer: NanoDet-Plus and PicoDet. Knows no modules.

A network is a function of a `Layers` and the image. What runs it decides what a map is: a tensor, the number of its
channels, a place in a plan. Layers are named as in the published weight files, so that these can be read as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

CLASSES = 80
BINS = 8  # of the distribution over each of a box's four distances
LEVELS = (8, 16, 32, 64)  # strides at which boxes are looked for
NECK = 96  # channels of both networks' feature pyramids


class Layers(Protocol[T]):
    """What networks are made of. Kernels are odd, padded by half of their size on every side.

    Activations are "none", "leaky" (0.1 below zero) or "hardswish".
    """

    def conv(self, x: T, name: str, outputs: int, kernel: int = 1, stride: int = 1, activation: str = "none") -> T:
        """A convolution of all channels."""

    def depthwise(self, x: T, name: str, kernel: int = 3, stride: int = 1, activation: str = "none") -> T:
        """A convolution of each channel by itself."""

    def excite(self, x: T, names: tuple[str, str]) -> T:
        """Squeeze and excitation (Hu et al. 2018): channels times factors that a quarter as many decide."""

    def max_pool(self, x: T) -> T:
        """The largest of windows of 3 x 3, stride 2."""

    def join(self, parts: Sequence[T]) -> T:
        """Channels of several maps, one behind the other."""

    def halves(self, x: T) -> tuple[T, T]:
        """The first and the second half of the channels."""

    def shuffle(self, x: T) -> T:
        """Channels of the two halves, taken in turns."""

    def double(self, x: T, smooth: bool) -> T:
        """Twice the height and width; smooth is bilinear, else each pixel becomes four."""

    def add(self, x: T, y: T) -> T:
        """The sum of two maps."""


@dataclass(frozen=True)
class Seen(Generic[T]):
    """What a detector sees of an image.

    Attributes:
        maps: the backbone's features by stride, 16 and 32.
        levels: for each of LEVELS a map of CLASSES logits and 4 x BINS logits, of distances left, top, right, bottom.
    """

    maps: dict[int, T]
    levels: tuple[T, ...]


Network = Callable[[Layers[Any], Any], Seen[Any]]


@dataclass(frozen=True)
class DetectorFacts:
    """A detector as a network and how its outputs are read.

    Attributes:
        network: the function.
        centre: where in its cell a box's distances begin, as a share of the cell's side.
        swaps: it reads blue, green, red.
        gains: of the backbone's features by stride, 16 and 32: they make them as large as those of other encoders, a
            mean absolute value of about 0.35, so that captioners learn from them at the usual learning rates.
    """

    network: Network
    centre: float
    swaps: bool = False
    gains: Mapping[int, float] = field(default_factory=lambda: {16: 1.0, 32: 1.0})


# NanoDet-Plus-m, github.com/RangiLyu/nanodet: ShuffleNetV2 1.0x (Ma et al. 2018, arXiv 1807.11164) and a pyramid of
# ghost blocks (Han et al. 2020, arXiv 1911.11907). Weights are named by ncnn: by what is fused, and numbered by kind.

SHUFFLENET = ((116, 4), (232, 8), (464, 4))  # channels, blocks
GHOSTS = ((38, 0, 56, 182), (40, 1, 59, 185), (42, 3, 63, 189), (44, 5, 67, 193))  # numbers of their layers
TOWERS = ((8, 47, 9, 54, 73), (10, 48, 11, 53, 76), (12, 49, 13, 52, 79), (14, 50, 15, 51, 82))


def nanodet_plus_m(net: Layers[T], image: T) -> Seen[T]:
    """1.17 million weights; COCO mAP 27.0 at 320 and 30.4 at 416 pixels as published."""
    x = net.max_pool(net.conv(image, "convrelu_0", 24, 3, 2, "leaky"))
    full, single = count(1), count(162)
    maps = []
    for channels, blocks in SHUFFLENET:
        for block in range(blocks):
            x = _shuffle_block(net, x, channels // 2, block == 0, full, single)
        maps.append(x)
    c3, c4, c5 = maps

    def down(x: T, single: int, full: int) -> T:
        return net.conv(
            net.depthwise(x, f"convdwrelu_{single}", 5, 2, "leaky"), f"convrelu_{full}", NECK, activation="leaky"
        )

    top = net.conv(c5, "convrelu_36", NECK, activation="leaky")
    middle = net.conv(c4, "convrelu_37", NECK, activation="leaky")
    n4 = _ghost(net, net.join([net.double(top, True), middle]), *GHOSTS[0])
    fine = net.conv(c3, "convrelu_39", NECK, activation="leaky")
    p3 = _ghost(net, net.join([net.double(n4, True), fine]), *GHOSTS[1])
    p4 = _ghost(net, net.join([down(p3, 2, 41), n4]), *GHOSTS[2])
    p5 = _ghost(net, net.join([down(p4, 4, 43), top]), *GHOSTS[3])
    p6 = net.add(down(top, 6, 46), down(p5, 7, 45))
    levels = []
    for x, (single1, full1, single2, full2, last) in zip((p3, p4, p5, p6), TOWERS, strict=True):
        names = f"convdwrelu_{single1}", f"convrelu_{full1}", f"convdwrelu_{single2}", f"convrelu_{full2}"
        levels.append(_tower(net, x, (*names, f"conv_{last}"), "leaky"))
    return Seen({16: c4, 32: c5}, tuple(levels))


def _shuffle_block(net: Layers[T], x: T, half: int, strides: bool, full: "count[int]", single: "count[int]") -> T:
    """A block of ShuffleNetV2: one branch keeps what is there, or shrinks it; the other works on it."""
    stride = 2 if strides else 1
    kept, y = (net.depthwise(x, f"convdw_{next(single)}", 3, 2), x) if strides else net.halves(x)
    y = net.conv(y, f"convrelu_{next(full)}", half, activation="leaky")
    y = net.depthwise(y, f"convdw_{next(single)}", 3, stride)
    y = net.conv(y, f"convrelu_{next(full)}", half, activation="leaky")
    if strides:
        kept = net.conv(kept, f"convrelu_{next(full)}", half, activation="leaky")
    return net.shuffle(net.join([kept, y]))


def _ghost(net: Layers[T], x: T, full: int, single: int, plain: int, separate: int) -> T:
    """A ghost block: half of the channels are convolved, the other half are filtered from those."""
    y = net.conv(x, f"convrelu_{full}", NECK // 2, activation="leaky")
    y = net.join([y, net.depthwise(y, f"convdwrelu_{single}", activation="leaky")])
    y = net.conv(y, f"conv_{plain}", NECK // 2)
    y = net.join([y, net.depthwise(y, f"convdw_{separate}")])
    return net.add(y, net.conv(net.depthwise(x, f"convdw_{separate + 1}", 5), f"conv_{plain + 1}", NECK))


# PicoDet-S (Yu et al. 2021, arXiv 2111.00902): ESNet 0.75x and a CSP-PAN. Weights are numbered in the order of use.

# channels, channels within the block that strides, channels filtered in each of the others
ESNET = ((96, 44, (24, 24)), (192, 48, (60, 48, 60, 48, 48, 48)), (384, 96, (96, 96)))


def picodet_s_416(net: Layers[T], image: T) -> Seen[T]:
    """0.98 million weights; COCO mAP 30.6 at 416 pixels as published."""
    names = (f"conv{i}" for i in count())

    def conv(x: T, outputs: int) -> T:
        return net.conv(x, next(names), outputs, activation="hardswish")

    def separable(x: T, kernel: int, stride: int, outputs: int) -> T:
        return conv(net.depthwise(x, next(names), kernel, stride, "hardswish"), outputs)

    def csp(x: T) -> T:
        short = conv(x, NECK // 2)
        y = separable(conv(conv(x, NECK // 2), NECK // 2), 5, 1, NECK // 2)
        return conv(net.join([y, short]), NECK)

    x = net.max_pool(net.conv(image, next(names), 24, 3, 2, "hardswish"))
    maps = []
    for channels, within, filtered in ESNET:
        half = channels // 2
        kept = conv(net.depthwise(x, next(names), 3, 2), half)
        y = net.depthwise(conv(x, within), next(names), 3, 2)
        y = conv(net.excite(y, (next(names), next(names))), half)
        x = separable(net.join([kept, y]), 3, 1, channels)
        for some in filtered:
            kept, y = net.halves(x)
            y = conv(y, some)
            y = net.join([y, net.depthwise(y, next(names))])
            y = conv(net.excite(y, (next(names), next(names))), half)
            x = net.shuffle(net.join([kept, y]))
        maps.append(x)
    fine, middle, top = (conv(x, NECK) for x in maps)
    n4 = csp(net.join([net.double(top, False), middle]))
    p3 = csp(net.join([net.double(n4, False), fine]))
    p4 = csp(net.join([separable(p3, 5, 2, NECK), n4]))
    p5 = csp(net.join([separable(p4, 5, 2, NECK), top]))
    p6 = net.add(separable(top, 5, 2, NECK), separable(p5, 5, 2, NECK))
    levels = tuple(
        _tower(net, x, tuple(next(names) for _ in range(5)), "hardswish") for x in (p3, p4, p5, p6)
    )  # fmt: skip
    return Seen({16: maps[1], 32: maps[2]}, levels)


def _tower(net: Layers[T], x: T, names: tuple[str, ...], activation: str) -> T:
    """Two separable convolutions, and the logits of classes and distances."""
    for single, full in (names[:2], names[2:4]):
        x = net.conv(net.depthwise(x, single, 5, 1, activation), full, NECK, activation=activation)
    return net.conv(x, names[4], CLASSES + 4 * BINS)


DETECTORS: dict[str, DetectorFacts] = {
    "nanodet_plus_m": DetectorFacts(nanodet_plus_m, 0.0, swaps=True, gains={16: 8.0, 32: 24.0}),
    "picodet_s_416": DetectorFacts(picodet_s_416, 0.5),
}
