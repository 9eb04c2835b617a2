"""How each encoder becomes the program `encode`: a function for each, which lists its layers.

A rule yields the output of each block. It is asked for no more once grid and pooled feature are there, and its last
output is the one that is pooled. Layers are named as in the torch modules of laconic.models.
"""

from collections.abc import Callable, Iterator

from laconic.runtime.encoder_maps import Map, Maps
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.spec.encoders import channels_of
from laconic.spec.inverted import INVERTED, blocks_of, last_strided
from laconic.spec.model import EncoderConfig
from laconic.store import Packed

Rule = Callable[[Maps], Iterator[Map]]

V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
INCEPTION_BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
INCEPTION_POOLS = {"4b": 3, "5b": 2}  # window of the pooling of stride 2 before a block
INCEPTION_BRANCHES = ("branch0", "branch1", "branch2", "branch3")


def mobilenet_v1(maps: Maps) -> Iterator[Map]:
    """MobileNet-V1 of any width."""
    x = maps.convolve(maps.pixels(), "conv0", stride=2)
    for i, stride in enumerate(V1_STRIDES, start=1):
        x = maps.depthwise(x, f"block{i}.depthwise", stride)
        x = maps.convolve(x, f"block{i}.pointwise", grid=i == {16: 11, 32: 13}[maps.stride])
        yield x


def inverted_residuals(maps: Maps) -> Iterator[Map]:
    """MobileNet-V2 and EfficientNet-Lite; a residual block adds to its own input, which nothing else reads."""
    x = maps.convolve(maps.pixels(), "conv0", stride=2)
    blocks = blocks_of(INVERTED[maps.config.name])
    for i, block in enumerate(blocks):
        grown = x
        if block.expands:
            grown = maps.convolve(x, f"block{i}.expand", grid=(maps.stride, i) == (16, last_strided(blocks)))
            yield grown
        deep = maps.depthwise(grown, f"block{i}.depthwise", block.stride)
        x = maps.convolve(deep, f"block{i}.project", activation="LINEARLY", onto=x if block.residual else None)
    yield maps.convolve(x, "head", grid=maps.stride == 32)


def inception_v1(maps: Maps) -> Iterator[Map]:
    """Inception-V1: the branches of a block write side by side into one table."""
    x = maps.convolve(maps.pixels(), "conv1a", 2, "RELU")
    x = maps.convolve(maps.max_pool(x, 3, 2), "conv2b", 1, "RELU")
    x = maps.max_pool(maps.convolve(x, "conv2c", 1, "RELU"), 3, 2)
    for name in INCEPTION_BLOCKS:
        if name in INCEPTION_POOLS:
            x = maps.max_pool(x, INCEPTION_POOLS[name], 2)
        x = _mixed(maps, x, f"mixed_{name}", grid=name == {16: "4f", 32: "5c"}[maps.stride])
        yield x


def _mixed(maps: Maps, x: Map, name: str, grid: bool) -> Map:
    shapes = [maps.packed.entries[f"encoder.{name}.{branch}.weight"].shape for branch in INCEPTION_BRANCHES]
    y = rest = maps.empty(sum(shape[0] for shape in shapes), x.side, grid)
    for branch in INCEPTION_BRANCHES:
        seen = maps.max_pool(x, 3, 1) if branch == "branch3" else x
        if branch in ("branch1", "branch2"):
            seen = maps.convolve(x, f"{name}.{branch}_reduce", 1, "RELU")
        done = maps.convolve(seen, f"{name}.{branch}", 1, "RELU", into=rest)
        rest = rest.below(done.channels)
    return y


def vgg_small(maps: Maps) -> Iterator[Map]:
    """A small VGG."""
    x, stages = maps.pixels(), {16: 4, 32: 5}[maps.stride]
    for i in range(stages):
        x = maps.max_pool(maps.convolve(x, f"stages.{i}", 1, "RELU"), 2, 2, grid=i == stages - 1)
        yield x


def convnet(maps: Maps) -> Iterator[Map]:
    """Convolutions of stride 2."""
    x, layers = maps.pixels(), {16: 4, 32: 5}[maps.stride]
    for i in range(layers):
        x = maps.convolve(x, f"conv{i}", 2, grid=i == layers - 1)
        yield x


RULES: dict[str, Rule] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v1_050": mobilenet_v1,
    "mobilenet_v1_025": mobilenet_v1,
    "mobilenet_v2": inverted_residuals,
    "efficientnet_lite0": inverted_residuals,
    "efficientnet_lite1": inverted_residuals,
    "efficientnet_lite2": inverted_residuals,
    "inception_v1": inception_v1,
    "vgg_small": vgg_small,
    "convnet": convnet,
}


def plan_encoder(builder: Builder, packed: Packed, config: EncoderConfig, grid: Place, pooled: int) -> None:
    """Adds the program that fills `grid`, and `pooled` unless it is NONE, from the pixels of an image."""
    maps = Maps(builder, packed, config, grid)
    for output in RULES[config.name](maps):
        last = output
        if pooled == NONE and maps.has_grid:
            return
    maps.check_width("the last layer", last.channels, channels_of(config).pooled)
    builder.add("encode", "MEAN", x=last.place, y=Place(pooled))
