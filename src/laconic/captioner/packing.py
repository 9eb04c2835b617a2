"""A captioner in one packed file: `save` and `load`, and what both need: folding, and building without memory.

Knows nothing of training, data sets or metrics.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from laconic import store
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.unread import clear, unread
from laconic.errors import ConfigError, FormatError, PruningError
from laconic.models.layers import fold_batch_norm
from laconic.spec.model import ModelConfig
from laconic.spec.packed import damaged_configuration, packed_config, read_spec
from laconic.store.codecs import keeps_float32
from laconic.store.values import codes_on_grid
from laconic.text import Vocabulary

MAX_WEIGHTS = 2**28  # of a captioner with its encoder, 1 GiB; the largest that were published have a fifth of it


def fold(captioner: ImageCaptioner) -> None:
    """Moves batch norms, and biases and gains that others can take over, into other weights, in place, and clears those
    that no word depends on.

    What the captioner says stays the same up to rounding. Folding twice changes nothing more, unless it is quantised
    in between.
    """
    fold_batch_norm(captioner.encoder)
    captioner.decoder.fold()
    clear(captioner, unread(captioner))


def folded(captioner: ImageCaptioner, *, exact: bool = False) -> ImageCaptioner:
    """The captioner as `fold` leaves it, or with `exact` only its batch norms folded, which every packed file lacks.

    The argument stays as it is, and a part that stays as it is is shared with it.
    """
    shared: list[Any] = [captioner.spec, captioner.config, captioner.vocabulary]
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in captioner.encoder.modules())
    clears = not exact and bool(unread(captioner))
    if not normed and not clears:
        shared.append(captioner.encoder)
    if exact:
        shared.append(captioner.decoder)
    other = copy.deepcopy(captioner, {id(part): part for part in shared})
    if other.encoder is not captioner.encoder:
        fold_batch_norm(other.encoder)
    if other.decoder is not captioner.decoder:
        other.decoder.fold()
    if clears:
        clear(other, unread(other))  # asked again: folding has put biases in the place of norms
    return other


def save(
    captioner: ImageCaptioner,
    path: Path,
    values: str = "half",
    *,
    steps: Mapping[str, float] | None = None,
    **facts: Any,
) -> int:
    """Packs a captioner, folded, into one file; returns its bytes. The captioner itself stays as it is.

    Under "exact" and "trained" only batch norm is folded, and every other bit kept. `steps` is for a captioner that has
    been quantised, see laconic.recipes.calibration and laconic.compress.quantized.aware. `facts` are JSON-able remarks
    kept in the file, such as scores.

    Raises:
        PruningError: where masks are still on the captioner.
        ConfigError, FormatError: as laconic.store.save.
    """
    if any(parametrize.is_parametrized(module) for module in captioner.modules()):
        raise PruningError(f"{path}: not written, masks are still on the captioner; finalize the pruner first")
    # what has been quantised has been folded before, and lies on its steps
    lossless = values in store.VALUES and store.VALUES[values].loses_nothing
    packed = folded(captioner, exact=lossless or bool(steps))
    words, config = list(captioner.vocabulary.words), packed_config(captioner.spec, facts)
    return store.save(packed, path, values=values, steps=steps, config=config, vocabulary=words)


@torch.no_grad()
def still_on_grid(captioner: ImageCaptioner, steps: Mapping[str, float]) -> dict[str, float]:
    """Those of the steps, by names of weights, whose weights are whole multiples of them to the last bit."""
    weights, kept = captioner.state_dict(), {}
    for name in steps.keys() & weights.keys():
        with suppress(ValueError):  # it has moved
            codes_on_grid(weights[name].float().cpu().numpy(), steps[name])
            kept[name] = steps[name]
    return kept


@torch.no_grad()
def shorten_floats(captioner: ImageCaptioner, steps: Mapping[str, float]) -> None:
    """Folds batch norms, clears what no word depends on, and rounds what lies on no step to float16, in place, as for
    "half".

    A "trained" file, which loses nothing, then has two bytes for each such number instead of four, and holds what is
    scored before it is written. Numbers that float16 cannot hold stay as they are.
    """
    fold_batch_norm(captioner.encoder)
    clear(captioner, unread(captioner))
    for name, parameter in captioner.named_parameters():
        if name not in steps and not keeps_float32(tuple(parameter.shape)):
            short = parameter.half().float()
            parameter.copy_(torch.where(short.isfinite(), short, parameter))


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
    packed.verify()
    try:
        captioner = captioner.to_empty(device="cpu")
    except RuntimeError:
        size = 4 * sum(parameter.numel() for parameter in captioner.parameters())
        raise FormatError(f"{path}: needs {size:,} bytes of memory, more than can be had; free some") from None
    captioner.decoder.tie_weights()
    for name, weight in captioner.state_dict().items():  # one at a time, so that memory holds no second copy
        weight.copy_(torch.from_numpy(packed[name]))
    return captioner.eval()
