"""Which encoder and which captioner: the configuration of a model, vocabulary apart.

Recipes and packed files hold it. What its names stand for is in the tables of `encoders` and `captioners`.
"""

from dataclasses import dataclass, field
from typing import Any

REGIONS = "regions"  # the encoder whose work a detector has done: features come from files

ENCODER, DECODER = PARTS = ("encoder", "decoder")  # of a captioner; its weights are named after them


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and how it sees an image.

    Attributes:
        name: a row of ENCODERS, or "regions" for a captioner that reads region features.
        size: images are resized to size x size pixels.
        stride: of the grid, 16 (finer) or 32.
        norm: batch norm kept apart, for training from scratch; packing folds it.
        channels: width of "regions"; the width of other encoders is their own.
    """

    name: str = "mobilenet_v2"
    size: int = 224
    stride: int = 32
    norm: bool = False
    channels: int = 2048


@dataclass(frozen=True)
class DecoderConfig:
    """Which captioner, with its own options (see its config dataclass), such as `cell` or `dropout`."""

    name: str = "soft_attention"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build an ImageCaptioner, vocabulary apart."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
