"""How a model folder wants its pixels normalised: what its image processor's file says, and files that say it."""

import json
import math
from pathlib import Path
from typing import Any

from laconic.errors import ConfigError, FormatError
from laconic.spec.pixels import Normalization

FILES = ("preprocessor_config.json", "processor_config.json")  # of older and of newer versions of transformers
MOST_BYTES = 1 << 20


def read_normalization(folder: Path) -> Normalization | None:
    """The mean and scale of a folder's image processor; None where the folder holds none.

    Raises:
        FormatError: a file that is no image processor's, or means and deviations that are no three finite numbers.
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        config = _read(path)
        config = config.get("image_processor", config)
        if isinstance(config, dict) and ("image_mean" in config or "do_normalize" in config):
            try:
                return _normalization(config)
            except (ConfigError, KeyError, TypeError, ValueError, OverflowError) as error:
                raise FormatError(f"{path}: tells no normalisation of pixels ({error})") from None
    return None


def image_processor(side: int, pixels: Normalization) -> Any:
    """An image processor of transformers that makes squares of `side` and normalises as `pixels` says."""
    from transformers import BlipImageProcessorPil

    mean, deviation = ([value / 255 for value in values] for values in (pixels.mean, pixels.scale))
    return BlipImageProcessorPil(size={"height": side, "width": side}, image_mean=mean, image_std=deviation)


def _normalization(config: dict[str, Any]) -> Normalization:
    """(byte x factor - mean) / deviation, written as Normalization has it."""
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    mean, deviation = [0.0] * 3, [1.0] * 3
    if config.get("do_normalize", True):
        mean, deviation = ([float(value) for value in config[key]] for key in ("image_mean", "image_std"))
    if not math.isfinite(factor) or factor <= 0:
        raise ValueError(f"rescale_factor = {factor}")
    return Normalization(tuple(value / factor for value in mean), tuple(value / factor for value in deviation))


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as an image processor's file ({error})") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: holds no table, so it is no image processor's file")
    return found
