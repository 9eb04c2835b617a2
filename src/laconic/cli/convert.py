"""The verb `convert`: a published checkpoint becomes a packed file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from laconic.cli.console import size_line
from laconic.cli.messages import show
from laconic.cli.pack import calibrated, check_as_trained, is_calibrated, with_precisions
from laconic.cli.paths import Overwrite, PackedFile
from laconic.errors import ConfigError


@dataclass(frozen=True)
class Convert:
    """Converts an Up-Down checkpoint by the authors of Supermask Pruning into one small safetensors file."""

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


def convert_options() -> type:
    return with_precisions(Convert)


def convert(options: Convert) -> None:
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
