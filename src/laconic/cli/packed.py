"""The verbs that look at a packed file: `inspect`, `unpack` and `diff`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from laconic.cli.arguments import model_file
from laconic.cli.console import (
    comparison_lines,
    comparison_table,
    console_for,
    inspection_table,
    other_sizes,
    size_line,
    tell,
)
from laconic.cli.documents import write_json
from laconic.cli.messages import show
from laconic.cli.paths import ComparisonJson, DenseFile, InspectionJson, Overwrite


@dataclass(frozen=True)
class Unpack:
    """Writes the weights of a packed file as an ordinary safetensors file: dense, float32."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed file, or the folder of a finished run."""
    out: DenseFile
    """The file to write. Its metadata holds configuration and vocabulary as JSON."""
    overwrite: Overwrite = False


def unpack(options: Unpack) -> None:
    """Writes the file and says how large it is."""
    from laconic import store

    show(f"{options.out}: {store.unpack(model_file(options.file), options.out):,} bytes")


@dataclass(frozen=True)
class Inspect:
    """Shows the tensors of a packed file, the bytes each takes, and how close that is to the theoretical minimum."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed file, or the folder of a finished run."""
    json: InspectionJson = None
    """Write the table to this file as JSON; - for standard output, which then holds nothing else."""
    overwrite: Overwrite = False


def inspect(options: Inspect) -> None:
    """Prints the table of tensors."""
    from laconic import store

    inspection = store.inspect(model_file(options.file), gzip=True)
    console = console_for(options.json)
    console.print(inspection_table(inspection))
    for line in (size_line(inspection), *other_sizes(inspection)):
        tell(console, line)
    write_json(inspection.as_dict(), options.json)


@dataclass(frozen=True)
class Diff:
    """Shows what differs between two packed files. Exit code 1 where something does."""

    first: Annotated[Path, Positional, arg(metavar="A")]
    """A packed file, or the folder of a finished run."""
    second: Annotated[Path, Positional, arg(metavar="B")]
    """Another one."""
    json: ComparisonJson = None
    """Write the differences to this file as JSON; - for standard output, which then holds nothing else."""
    overwrite: Overwrite = False


def diff(options: Diff) -> int:
    """Prints the tensors that changed."""
    from laconic import store

    comparison = store.compare(model_file(options.first), model_file(options.second))
    console = console_for(options.json)
    if comparison.only_first or comparison.only_second or comparison.changed:
        console.print(comparison_table(comparison))
    for line in comparison_lines(comparison):
        tell(console, line)
    write_json(comparison.as_dict(), options.json)
    return 0 if comparison.same else 1
