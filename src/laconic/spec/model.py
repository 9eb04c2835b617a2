"""Which encoder and which captioner: the configuration of a model, vocabulary apart.

Recipes and packed files hold it. What its names stand for is in the tables of `encoders` and `captioners`.
"""

from dataclasses import dataclass, field
from typing import Any

REGIONS = "regions"  # the encoder whose work a detector has done: features come from files

PARTS = ("encoder", "decoder")  # of a captioner; its weights are named after them


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and how it sees an image.

    Attributes:
        name: the network that sees the image; "regions" stands for a detector's features from files in its place.
        size: images are resized to size x size pixels, at most 1024 x 1024.
        stride: pixels from one cell of the encoder's grid to the next; 16 gives four times as many cells as 32.
        norm: gives the encoder batch normalisation, for training it from scratch; packing folds it into the weights.
        channels: numbers per region, for the encoder "regions" alone.
        regions: boxes that a detector gives of each image, the first of them the whole image; for detectors alone.
    """

    name: str = "mobilenet_v2"
    size: int = 224
    stride: int = 32
    norm: bool = False
    channels: int = 2048
    regions: int = 36


@dataclass(frozen=True)
class DecoderConfig:
    """Which captioner, the network that writes the words, and its own options.

    Attributes:
        name: the captioner.
        options: the options of the captioner that is chosen.
    """

    name: str = "soft_attention"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build an ImageCaptioner, vocabulary apart."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
