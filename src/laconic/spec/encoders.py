"""The table of encoders: what each gives to a captioner and how it wants its pixels. Knows no modules.

An encoder reads images and gives a grid of cells and one pooled feature (laconic.models.layers.Features). A detector
gives regions with boxes in the place of cells. With the name "regions" a detector has done that already, and features
come from files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from laconic.errors import ConfigError
from laconic.spec.detectors import CLASSES, LEVELS
from laconic.spec.model import REGIONS, EncoderConfig
from laconic.spec.pixels import LEAST_SIDE, MOST_SIDE, Normalization

MOST_CHANNELS = 65536  # of regions
MOST_REGIONS = 1024  # of an image: transformers relate all of them to each other


@dataclass(frozen=True)
class EncoderFacts:
    """What an encoder is to others.

    Attributes:
        grid: stride of the grid -> its channels; strides that are not there are not possible. Of a detector, the
            finest stride of the maps that the features of its regions are taken from.
        pooled: channels of the pooled feature.
        normalization: of the pixels it reads.
        detects: it gives `EncoderConfig.regions` boxes, and what is seen in them.
    """

    grid: Mapping[int, int]
    pooled: int
    normalization: Normalization = field(default_factory=Normalization)
    detects: bool = False


LITE = Normalization(mean=(127.0,) * 3, scale=(128.0,) * 3)  # as EfficientNet-Lite was trained
IMAGENET = Normalization(mean=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375))  # as detectors were trained

ENCODERS: dict[str, EncoderFacts] = {
    "mobilenet_v1": EncoderFacts({16: 512, 32: 1024}, 1024),
    "mobilenet_v1_050": EncoderFacts({16: 256, 32: 512}, 512),
    "mobilenet_v1_025": EncoderFacts({16: 128, 32: 256}, 256),
    "mobilenet_v2": EncoderFacts({16: 576, 32: 1280}, 1280),
    "efficientnet_lite0": EncoderFacts({16: 672, 32: 1280}, 1280, LITE),
    "efficientnet_lite1": EncoderFacts({16: 672, 32: 1280}, 1280, LITE),
    "efficientnet_lite2": EncoderFacts({16: 720, 32: 1280}, 1280, LITE),
    "inception_v1": EncoderFacts({16: 832, 32: 1024}, 1024),
    "vgg_small": EncoderFacts({16: 128, 32: 128}, 128),
    "convnet": EncoderFacts({16: 128, 32: 128}, 128),
    "nanodet_plus_m": EncoderFacts({16: 232 + 464 + CLASSES, 32: 464 + CLASSES}, 464, IMAGENET, detects=True),
    "picodet_s_416": EncoderFacts({16: 192 + 384 + CLASSES, 32: 384 + CLASSES}, 384, IMAGENET, detects=True),
}


class Channels(NamedTuple):
    """Widths of an encoder's Features."""

    grid: int
    pooled: int


def check_encoder(encoder: EncoderConfig) -> None:
    """ConfigError unless there is such an encoder, and it can see images so."""
    if encoder.name == REGIONS:
        if not 1 <= encoder.channels <= MOST_CHANNELS:
            raise ConfigError(f"encoder channels {encoder.channels} are not possible; give 1 to {MOST_CHANNELS}")
    elif encoder.name not in ENCODERS:
        known = ", ".join([*ENCODERS, REGIONS])
        raise ConfigError(f"encoder {encoder.name!r} is unknown; choose one of {known}")
    elif encoder.stride not in ENCODERS[encoder.name].grid:
        strides = " or ".join(map(str, sorted(ENCODERS[encoder.name].grid)))
        raise ConfigError(f"encoder stride {encoder.stride} is not possible; choose {strides} (the smaller is finer)")
    if not LEAST_SIDE <= encoder.size <= MOST_SIDE:
        raise ConfigError(f"encoder size {encoder.size} is not possible; give {LEAST_SIDE} to {MOST_SIDE}")
    if detects(encoder):
        _check_detector(encoder)


def _check_detector(encoder: EncoderConfig) -> None:
    if encoder.norm:
        raise ConfigError(f"{encoder.name} has no batch norm: set encoder.norm = false, and name its weights")
    if encoder.size % 32:
        raise ConfigError(f"{encoder.name} reads images of a multiple of 32 pixels, not of {encoder.size}; give 416")
    most = min(MOST_REGIONS, (encoder.size // LEVELS[0]) ** 2)
    if not 2 <= encoder.regions <= most:
        raise ConfigError(f"encoder regions {encoder.regions} are not possible; give 2 to {most} at this size")


def detects(encoder: EncoderConfig) -> bool:
    """Whether it is a detector, which gives regions in the place of a grid's cells."""
    return encoder.name in ENCODERS and ENCODERS[encoder.name].detects


def channels_of(encoder: EncoderConfig) -> Channels:
    """Widths of the Features that an encoder gives; raises as `check_encoder`."""
    check_encoder(encoder)
    if encoder.name == REGIONS:
        return Channels(encoder.channels, encoder.channels)
    facts = ENCODERS[encoder.name]
    return Channels(facts.grid[encoder.stride], facts.pooled)


def cells_of(encoder: EncoderConfig) -> int:
    """Cells of the grid that an encoder makes of an image: ceil(size / stride) squared; regions of a detector."""
    if detects(encoder):
        return encoder.regions
    return (-(-encoder.size // encoder.stride)) ** 2


def normalization_of(encoder: EncoderConfig) -> Normalization:
    """How an encoder wants its pixels; of regions, which have none, the default."""
    return Normalization() if encoder.name == REGIONS else ENCODERS[encoder.name].normalization
