"""The verb `export`: a packed captioner as a page, as ONNX files, or as sources for an application."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.cli.arguments import model_file
from laconic.cli.messages import show
from laconic.cli.paths import ExportFolder


@dataclass(frozen=True)
class Export:
    """Writes a packed captioner in a form that others run (docs/guide/anywhere.md)."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, the folder of a finished run, or the name of one that comes with laconic, flickr8k_tiny or
    flickr8k_small."""
    folder: Annotated[ExportFolder, Positional, arg(metavar="DIR")]
    """The folder to write: a new or an empty one, or an earlier export."""
    to: Literal["web", "onnx", "c"]
    """web: a page that captions in the browser, from any static host. onnx: encoder, decoder step and the whole greedy
    search, for ONNX Runtime. c: a plan, and the C library's sources."""
    width: Literal["exact", "bfloat16"] | None = None
    """web, c: how weights lie in the plan, as exactly as in FILE (default), or in half of the memory, rounded to 8
    significant bits."""
    beam: int | None = None
    """web: captions that the search keeps at a time; 3 by default."""
    max_length: int | None = None
    """web, onnx: words of a caption at most; 20 by default."""
    int8: FlagCreatePairsOff[bool] = False
    """onnx: write files with weights of 8 bits, too."""


def export(options: Export) -> None:
    """Writes the folder and says what is in it."""
    from laconic.export.table import Options
    from laconic.export.table import export as write

    chosen = Options(options.width, options.beam, options.max_length, options.int8)
    for line in write(model_file(options.file), options.folder, options.to, chosen):
        show(line)
