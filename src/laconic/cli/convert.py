"""The verb `convert`: a published checkpoint becomes a packed file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from laconic.cli.console import check_target, size_line
from laconic.cli.pack import STEPPED, calibrated
from laconic.errors import ConfigError


@dataclass(frozen=True)
class Convert:
    """Converts a run of the Supermask Pruning authors' code (Up-Down, PyTorch) into one small safetensors file."""

    run: Annotated[Path, Positional, arg(metavar="DIR")]
    """The folder of config.json, word.vocab and the checkpoint."""
    out: Annotated[Path, arg(aliases=("-o",), metavar="FILE")]
    """The file to write."""
    values: Literal["exact", "half", "fine", "compact"] = "exact"
    """Precision of the weights: exact (float32), half (float16), fine (logits within 1 %) or compact (within 6 %)."""
    calibrate: Annotated[tuple[Path, ...], arg(metavar="FEATURES.npy")] = ()
    """Region features, files or folders of them, to calibrate fine and compact values on; rounded plainly without."""


def convert(options: Convert) -> None:
    """Writes the file and says how small it is."""
    check_target(options.out, "-o")
    if options.calibrate and options.values not in STEPPED:
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
    print(size_line(store.inspect(options.out)))
