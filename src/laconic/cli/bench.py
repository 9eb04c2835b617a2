"""The verb `bench`: how fast a captioner is here, beside the other ways to run it."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich import box
from rich.table import Table
from tyro.conf import Positional, arg

from laconic.cli.arguments import model_file
from laconic.cli.console import console_for, tell
from laconic.cli.documents import write_json
from laconic.cli.messages import say
from laconic.cli.paths import BenchCsv, BenchJson, Overwrite
from laconic.errors import ConfigError
from laconic.machine.files import write_text

if TYPE_CHECKING:
    from laconic.bench.contest import Contestant, Result


@dataclass(frozen=True)
class Bench:
    """Times the engine beside PyTorch and, where installed, ONNX Runtime and OpenVINO, on one thread."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, or the folder of a finished run."""
    photos: Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGE...")] = ()
    """What is captioned, in one batch: photos, or .npy files of regions. Random numbers where none is given."""
    images: int = 1
    """How many random images, where no photo is given."""
    beam: int = 3
    """How many captions the search keeps at a time; 1 is greedy search."""
    max_length: int = 20
    """Words of a caption at most."""
    rounds: int = 7
    """How often each way is timed; the medians are shown."""
    compile_seconds: int = 300
    """How long PyTorch may compile before that is left out; 0 leaves it out at once."""
    json: BenchJson = None
    """Write all numbers to this file as JSON; - for standard output, which then holds nothing else."""
    csv: BenchCsv = None
    """Write the table to this file as CSV."""
    overwrite: Overwrite = False


def bench(options: Bench) -> None:
    """Prints the table, what was left out, and whether anything is faster than the engine."""
    from laconic.bench.contest import Subject, contest
    from laconic.bench.given import from_files, random_inputs
    from laconic.decode.search import Decoding
    from laconic.runtime.inputs import Inputs

    for name, number in {"--images": options.images, "--rounds": options.rounds}.items():
        if number < 1:
            raise ConfigError(f"{name} {number}: give at least 1")
    decoding = Decoding(options.beam, options.max_length)
    subject = Subject(model_file(options.file), Inputs())
    given = from_files(subject.spec, options.photos) if options.photos else random_inputs(subject.spec, options.images)
    console = console_for(options.json)
    result = contest(
        replace(subject, inputs=given), decoding, options.rounds, lambda name: say(f"{name} ..."),
        _contestants(options.compile_seconds),
    )  # fmt: skip
    console.print(_table(result))
    for name, reason in result.left_out.items():
        tell(console, f"{name}: left out, {reason}")
    packages = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    tell(console, f"{result.processor}, engine for {result.level}, 1 thread, CPU time; {packages}")
    for sentence in result.verdict():
        tell(console, sentence)
    write_json(result.as_dict(), options.json)
    if options.csv is not None:
        write_text(options.csv, _csv(result))


def _contestants(compile_seconds: int) -> "Mapping[str, Contestant]":
    from laconic.bench.contest import CONTESTANTS

    if compile_seconds < 0:
        raise ConfigError(f"--compile-seconds {compile_seconds}: give 0 for none, or at least 1")
    bounded = {name: replace(one, seconds=compile_seconds) for name, one in CONTESTANTS.items() if one.seconds}
    return {name: bounded.get(name, one) for name, one in CONTESTANTS.items() if name not in bounded or compile_seconds}


def _table(result: "Result") -> Table:
    table = Table("", box=box.SIMPLE_HEAD)
    for column in ("ms per image", "times the engine's", f"same captions of {result.images:,}"):
        table.add_column(column, justify="right")
    for row in result.rows:
        over = result.over_engine(row)
        table.add_row(row.name, f"{1000 * row.seconds:.2f}", "" if over is None else f"{over:.2f}", f"{row.equal:,}")
    return table


def _csv(result: "Result") -> str:
    common: dict[str, Any] = {
        "images": result.images, "beam": result.beam, "max_length": result.max_length, "rounds": result.rounds,
        "processor": result.processor, "level": result.level,
        "versions": " ".join(f"{name}={version}" for name, version in result.versions.items()),
    }  # fmt: skip
    rows = [
        {"way": row.name, "seconds_per_image": f"{row.seconds:.4g}", "over_engine": _number(result.over_engine(row)),
         "equal": row.equal, **common}
        for row in result.rows
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
