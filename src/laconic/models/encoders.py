"""The table of encoders, and loading of published ImageNet weights.

An encoder is an nn.Module: images (N, 3, H, W), RGB / 127.5 - 1, to Features, with attributes `grid_channels` and
`pooled_channels`. `Regions` stands where a detector's features come from files and nothing is left to encode.
"""

import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from laconic.errors import ConfigError, FormatError
from laconic.machine.files import npy_header
from laconic.models.convnet import ConvNet
from laconic.models.inception_v1 import InceptionV1
from laconic.models.layers import Features
from laconic.models.mobilenet import MobileNetV1, MobileNetV2

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v1_050": partial(MobileNetV1, 0.5),
    "mobilenet_v1_025": partial(MobileNetV1, 0.25),
    "mobilenet_v2": MobileNetV2,
    "inception_v1": InceptionV1,
    "convnet": ConvNet,
}

REGIONS = "regions"
MAX_CHANNELS = 65536

# What numpy and zipfile raise on damaged, encrypted, lying or altogether different files.
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


class Regions(nn.Module):
    """The place of an encoder whose work is done: no weights; `pooled` is the mean of the regions, which are all
    `channels` wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grid_channels = self.pooled_channels = channels

    def forward(self, images: Tensor) -> Features:
        raise ConfigError("this captioner reads region features, not photos; give it .npy files of regions")


def build_encoder(name: str, stride: int, norm: bool, channels: int = 2048) -> nn.Module:
    """An encoder by name: a row of ENCODERS, or "regions".

    `stride` 16 or 32 of its grid; `norm` keeps batch norm for training from scratch; `channels` is the width of
    regions, which an image encoder has no use for.
    """
    if name == REGIONS:
        if not 1 <= channels <= MAX_CHANNELS:
            raise ConfigError(f"encoder channels {channels} are not possible; give 1 to {MAX_CHANNELS}")
        return Regions(channels)
    if name not in ENCODERS:
        raise ConfigError(f"encoder {name!r} is unknown; choose one of {', '.join([*ENCODERS, REGIONS])}")
    if stride not in (16, 32):
        raise ConfigError(f"encoder stride {stride} is not possible; choose 16 (finer) or 32")
    return ENCODERS[name](stride=stride, norm=norm)


def load_imagenet(encoder: nn.Module, path: Path) -> None:
    """Loads folded ImageNet weights from a .npz file of float32 arrays named like the encoder's parameters.

    Names of a classifier are passed over. Raises FormatError where the file cannot be read or does not fit.
    """
    state = encoder.state_dict()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = sorted(state.keys() - set(arrays.files))
            if missing:
                raise FormatError(f"{path}: weights of another network: no array {missing[0]!r} in it")
            for name, weight in state.items():
                with arrays.zip.open(f"{name}.npy") as entry:
                    shape, dtype = npy_header(entry)
                if shape != weight.shape or dtype.kind != "f":
                    expected = f"floats of shape {tuple(weight.shape)}"
                    raise FormatError(f"{path}: {name} has shape {shape} and type {dtype}, expected {expected}")
            loaded = {name: torch.from_numpy(arrays[name]) for name in state}
    except UNREADABLE as error:
        raise FormatError(f"{path}: cannot read encoder weights ({error}); give a .npz file") from error
    encoder.load_state_dict(loaded)
