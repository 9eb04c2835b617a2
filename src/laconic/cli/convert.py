"""The verb `convert`: a published checkpoint becomes a packed file, or a folder of Hugging Face transformers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from laconic.cli.console import size_line
from laconic.cli.messages import show
from laconic.cli.pack import calibrated, check_as_trained, is_calibrated, with_precisions
from laconic.cli.paths import ModelFolder, OptionalPath, Overwrite, PackedFile
from laconic.errors import ConfigError


@dataclass(frozen=True)
class Convert:
    """Converts an Up-Down checkpoint by the authors of Supermask Pruning into one small safetensors file.

    A checkpoint of BLIP, CLIP, DeiT or Segmenter, dense or pruned by UPop, becomes a folder instead:
    `laconic convert CHECKPOINT.pth --help`.
    """

    run: Annotated[Path, Positional, arg(metavar="DIR")]
    """The published folder, which holds config.json, word.vocab and the checkpoint."""
    out: PackedFile
    """The file to write."""
    values: str = "exact"
    """Precision of the weights. "exact" is float32, "half" float16; "fine" and "compact" are smaller, and should be
    calibrated."""
    calibrate: Annotated[tuple[Path, ...], arg(metavar="FEATURES.npy")] = ()
    """Files or folders of region features to calibrate "fine" or "compact" values on. Without them weights are rounded
    without calibration."""
    overwrite: Overwrite = False


@dataclass(frozen=True)
class ConvertOriginal:
    """Converts a published checkpoint of BLIP, CLIP, DeiT or Segmenter into a folder of Hugging Face transformers."""

    checkpoint: Annotated[Path, Positional, arg(metavar="CHECKPOINT")]
    """A file of torch.save or safetensors with the published names; dense, or pruned by UPop."""
    out: ModelFolder
    """The folder to write, which `laconic slim` and `laconic.hf.from_pretrained` read."""
    tokenizer: Annotated[OptionalPath, arg(metavar="DIR")] = None
    """A folder with the tokenizer of bert-base-uncased (for BLIP) or of CLIP, which the checkpoints do not hold."""


def convert_options() -> type:
    return with_precisions(Convert)


def convert_defaults(words: list[str]) -> ConvertOriginal | None:
    """What options override where a word is a file: the checkpoints of Supermask Pruning are folders."""
    if words and Path(words[0]).is_file():
        return ConvertOriginal(checkpoint=tyro.MISSING, out=tyro.MISSING)
    return None


def convert(options: Convert | ConvertOriginal) -> None:
    """Writes the file or the folder and says how large it is."""
    if isinstance(options, ConvertOriginal):
        _convert_original(options)
    else:
        _convert_run(options)


def _convert_original(options: ConvertOriginal) -> None:
    from laconic import hf
    from laconic.exchange.originals.models import read_original
    from laconic.exchange.originals.words import words_of
    from laconic.hf.pixels import image_processor

    found = read_original(options.checkpoint)
    tokenizer = words_of(found, options.tokenizer)
    hf.save_pretrained(found.net, options.out, tokenizer, image_processor(found.side, found.pixels))
    count = sum(parameter.numel() for parameter in found.net.parameters())
    show(f"{options.out}: {found.family}, {count / 1e6:.3f} M parameters")
    if found.left_out:
        some = ", ".join(found.left_out[:3]) + (" ..." if len(found.left_out) > 3 else "")
        show(f"left out, for the model has no place for them: {len(found.left_out)} tensors ({some})")
    if found.words and tokenizer is None:
        show(f"no tokenizer: give --tokenizer, or save {found.words}'s there before the model is used")


def _convert_run(options: Convert) -> None:
    """Writes the file and says how small it is."""
    check_as_trained(options.values, "exact", options.run)
    if options.calibrate and not is_calibrated(options.values):
        raise ConfigError(f"--calibrate: values {options.values} need none; give --values fine or compact")
    from laconic import store
    from laconic.captioner.packing import save
    from laconic.exchange.smp import convert as read_run
    from laconic.recipes.calibration import named_batches

    captioner = read_run(options.run)
    steps = None
    if options.calibrate:
        steps = calibrated(captioner, options.values, named_batches(captioner, options.calibrate), own=True)
    save(captioner, options.out, options.values, steps=steps)
    show(size_line(store.inspect(options.out)))
