"""The table of encoders, and loading of published ImageNet weights.

An encoder is an nn.Module made with `stride=` and `norm=`, a detector also with `regions=`: images (N, 3, H, W),
normalised as its row of laconic.spec.encoders says, to Features of the channels that stand there. `Regions` stands
where a detector's features come from files and nothing is left to encode.
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
from laconic.machine.files import atomically, npy_header
from laconic.models.convnet import ConvNet
from laconic.models.detector import Detector
from laconic.models.inception_v1 import InceptionV1
from laconic.models.inverted import InvertedNet
from laconic.models.layers import Features
from laconic.models.mobilenet import MobileNetV1
from laconic.models.vgg import SmallVGG
from laconic.spec.detectors import DETECTORS
from laconic.spec.encoders import check_encoder, detects
from laconic.spec.inverted import INVERTED
from laconic.spec.model import REGIONS, EncoderConfig
from laconic.spec.pixels import Normalization

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v1_050": partial(MobileNetV1, 0.5),
    "mobilenet_v1_025": partial(MobileNetV1, 0.25),
    "mobilenet_v2": partial(InvertedNet, INVERTED["mobilenet_v2"]),
    "efficientnet_lite0": partial(InvertedNet, INVERTED["efficientnet_lite0"]),
    "efficientnet_lite1": partial(InvertedNet, INVERTED["efficientnet_lite1"]),
    "efficientnet_lite2": partial(InvertedNet, INVERTED["efficientnet_lite2"]),
    "inception_v1": InceptionV1,
    "vgg_small": SmallVGG,
    "convnet": ConvNet,
    "nanodet_plus_m": partial(Detector, DETECTORS["nanodet_plus_m"]),
    "picodet_s_416": partial(Detector, DETECTORS["picodet_s_416"]),
}

# What numpy and zipfile raise on damaged, encrypted, lying or altogether different files.
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


class Regions(nn.Module):
    """The place of an encoder whose work is done: no weights; `pooled` is the mean of the regions."""

    def forward(self, images: Tensor) -> Features:
        raise ConfigError("this captioner reads region features, not photos; give it .npy files of regions")


def build_encoder(config: EncoderConfig) -> nn.Module:
    """The encoder of that name with initial weights; ConfigError where there is no such one."""
    check_encoder(config)
    if config.name == REGIONS:
        return Regions()
    options = {"regions": config.regions} if detects(config) else {}
    return ENCODERS[config.name](stride=config.stride, norm=config.norm, **options)


def normalize(pixels: Tensor, how: Normalization) -> Tensor:
    """uint8 (N, H, W, 3) to an encoder's float32 (N, 3, H, W), channels last in memory; the same as `how(pixels)`."""
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32)
    return planes.div_(_factor(how.scale, planes)).sub_(_factor(how.shift, planes))


def _factor(values: tuple[float, ...], planes: Tensor) -> float | Tensor:
    """One number where all channels have the same, which is faster, else one for each."""
    return values[0] if len(set(values)) == 1 else planes.new_tensor(values)[:, None, None]


def load_imagenet(encoder: nn.Module, path: Path) -> None:
    """Loads folded ImageNet weights from a .npz file of float arrays named like the encoder's parameters.

    They may be float16, too. Names of a classifier are passed over. Raises FormatError where the file cannot be read
    or does not fit.
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


def save_encoder(encoder: nn.Module, path: Path) -> None:
    """Writes what `load_imagenet` reads, atomically; batch norms must be folded. OSError as `atomically`."""
    with atomically(path) as file:
        np.savez(file, **{name: weight.cpu().numpy() for name, weight in encoder.state_dict().items()})
