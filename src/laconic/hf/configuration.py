"""What config.json says of a model folder, read as the file of a stranger. Needs neither torch nor transformers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.config import check_plain
from laconic.errors import FormatError
from laconic.machine.reading import read_json

CONFIG = "config.json"
CAPTIONER = "LaconicCaptioner"  # the architecture of a folder whose weights are a packed captioner
MOST_BYTES = 1 << 20
MOST_LAYERS, MOST_WIDTH = 200, 1 << 20  # beyond any model of these classes: limits before anything is built
SMALL = re.compile(r"num_.*_layers|num_.*_heads|decoder_layers")
FIXED = {"attn_implementation", "_attn_implementation", "quantization_config", "auto_map"}  # what runs or loads more


def architecture(folder: Path) -> str:
    """The first class that config.json names; FormatError where it is no such file, or asks for what is not taken."""
    try:
        config = read_json(folder / CONFIG, MOST_BYTES)
        check_plain(config, CONFIG)
        _check_limits(config)
        return str(config["architectures"][0])
    except FileNotFoundError:
        raise FormatError(f"{folder}: no {CONFIG} in it; give a folder that save_pretrained has written") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FormatError(f"{folder / CONFIG}: cannot be read as the configuration of a model ({error})") from None


def _check_limits(config: Mapping[str, Any]) -> None:
    """ValueError for what no model of these classes has, in the configuration or those within it."""
    for key, value in config.items():
        if key in FIXED and value not in (None, "eager", "sdpa"):
            raise ValueError(f"{key} = {value!r:.80}, which is not taken from a file; leave it out")
        if isinstance(value, Mapping):
            _check_limits(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            most = MOST_LAYERS if SMALL.fullmatch(key) else MOST_WIDTH
            if (SMALL.fullmatch(key) and value < 1) or value > most:
                raise ValueError(f"{key} = {value}; at least 1 and at most {most:,} are possible")
