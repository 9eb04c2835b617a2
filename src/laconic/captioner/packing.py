"""A captioner in one packed file: `save` and `load`, and what both need: folding, and building without memory.

Knows nothing of training, data sets or metrics.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from laconic import store
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.errors import ConfigError
from laconic.models.fold import fold_biases
from laconic.models.layers import fold_batch_norm
from laconic.spec.model import ModelConfig
from laconic.spec.packed import damaged_configuration, packed_config, read_spec
from laconic.text import Vocabulary

MAX_WEIGHTS = 2**28  # of a captioner with its encoder, 1 GiB; the largest that were published have a fifth of it


def fold(captioner: ImageCaptioner) -> None:
    """Moves batch norms, and biases and gains that others can take over, into other weights, in place.

    What the captioner says stays the same up to rounding. Folding twice changes nothing more, unless it is quantised
    in between.
    """
    fold_batch_norm(captioner.encoder)
    fold_biases(captioner.decoder)


def save(
    captioner: ImageCaptioner,
    path: Path,
    values: str = "half",
    *,
    steps: Mapping[str, float] | None = None,
    **facts: Any,
) -> int:
    """Packs a captioner into one file, folded; returns its bytes. The captioner itself is folded, too.

    Under "exact" only batch norm is folded, and every other bit kept. `steps` is for a captioner that has been
    quantised, see laconic.recipes.calibration. `facts` are JSON-able remarks kept in the file, such as scores.
    """
    if values == "exact" or steps:  # what has been quantised has been folded before, and lies on its steps
        fold_batch_norm(captioner.encoder)
    else:
        fold(captioner)
    config = packed_config(captioner.spec, facts)
    words = list(captioner.vocabulary.words)
    return store.save(captioner, path, values=values, steps=steps, config=config, vocabulary=words)


def outline(config: ModelConfig, vocabulary: Vocabulary, max_weights: int = MAX_WEIGHTS) -> ImageCaptioner:
    """A captioner on the meta device: names and shapes, no memory. ConfigError where it has more weights than that."""
    try:
        with torch.device("meta"), _Undrawn():
            captioner = ImageCaptioner(config, vocabulary)
    except RuntimeError:  # its sizes are beyond what torch can count
        raise ConfigError(f"the captioner is too large to be built: {config.decoder}") from None
    weights = sum(parameter.numel() for parameter in captioner.parameters())
    if weights > max_weights:
        raise ConfigError(f"the captioner has {weights:,} weights, the limit is {max_weights:,}; give smaller sizes")
    return captioner


class _Undrawn(TorchFunctionMode):
    """Leaves out normally distributed initial values: on the meta device they would import torch's compiler, which
    takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.init.normal_:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load(path: Path, max_weights: int = MAX_WEIGHTS) -> ImageCaptioner:
    """Reads a packed captioner; FormatError where the file is damaged, holds something else, or more weights than that.

    Zeros cost a file nothing and memory 4 bytes each.
    """
    packed = store.load(path, max_weights=max_weights)
    spec = read_spec(packed)
    try:
        # nothing is allocated before shapes are known to be those of the file
        captioner = outline(spec.model, spec.vocabulary, max_weights)
    except (ConfigError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise damaged_configuration(packed, error) from None
    store.check_match(packed, captioner)
    captioner = captioner.to_empty(device="cpu")
    store.load_into(packed, captioner)
    return captioner.eval()
