"""The verb `convert`: a published checkpoint becomes a packed file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from laconic.console import check_target, size_line


@dataclass(frozen=True)
class Convert:
    """Converts a run of the Supermask Pruning authors' code (Up-Down, PyTorch) into one small safetensors file."""

    run: Annotated[Path, Positional, arg(metavar="DIR")]
    """The folder of config.json, word.vocab and the checkpoint."""
    out: Annotated[Path, arg(aliases=("-o",), metavar="FILE")]
    """The file to write."""
    values: Literal["half", "exact"] = "exact"
    """Precision of the weights: half (float16) or exact (float32)."""


def convert(options: Convert) -> None:
    """Writes the file and says how small it is."""
    check_target(options.out, "-o")
    from laconic import store
    from laconic.captioner import save
    from laconic.convert import convert as read_run

    save(read_run(options.run), options.out, options.values)
    print(size_line(store.inspect(options.out)))
