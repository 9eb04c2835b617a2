"""The verb `compress`: a trained captioner made as small as asked for."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich import box
from rich.table import Table
from tyro.conf import Positional, arg

from laconic.cli.paths import CompressFolder, Paths
from laconic.errors import ConfigError
from laconic.spec.manifest import MODEL

if TYPE_CHECKING:
    from laconic.recipes.choosing import Trial
    from laconic.recipes.compressing import Compressed
    from laconic.recipes.recipe import Recipe
    from laconic.recipes.run import Watcher

UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "kib": 1024, "mib": 1024**2}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Compress:
    """Makes a trained captioner, encoder included, as small as asked for: prunes it while it learns on with itself as
    the teacher, lets its weights become few whole numbers, packs it, and says what came out."""

    runs: Annotated[Paths, Positional, arg(metavar="RUN...")]
    """The folder of a finished run, or a recipe (.toml), whose captioner is trained first. Of several, with other
    encoders or captioners, a short stage each tells which one to go on with."""
    budget: str = ""
    """Size of the file at most, such as 1MB, 900kB or 800000."""
    keep: str = ""
    """Share of the CIDEr score to keep at least, such as 98% or 0.98; the smallest file that does is made."""
    out: CompressFolder = None
    """Folder for the stages and the file; runs/<name>_compressed by default."""
    epochs: int = 6
    """Epochs of a stage."""
    bits: tuple[int, ...] = (4,)
    """Of each weight, from 2 to 8. Of several, such as --bits 3 4 5, a short stage each tells which ones to take."""
    trial_epochs: int = 1
    """Epochs of these short stages."""
    size_epochs: int = 1
    """Epochs of one more short stage, for a budget: it measures how far trained files are from predicted sizes; 0
    leaves it out."""
    learning_rate: float = 5e-4
    """Of the decoder."""
    encoder_learning_rate: float = 2e-4
    """Of the encoder."""
    cache: Annotated[Path, arg(metavar="DIR")] = Path("cache")
    """Folder of cached images and image features, which all runs share."""
    threads: int = 0
    """Processor threads; 0 for all."""


def compress(options: Compress) -> None:
    """Carries the stages out and shows what each came to; what was stopped goes on when it is called again."""
    budget, keep = size_of(options.budget), share_of(options.keep)
    from laconic.cli.console import console_for
    from laconic.cli.progress import watching
    from laconic.machine.process import settle_in
    from laconic.recipes.choosing import Candidate, choose
    from laconic.recipes.compressing import Aim, Stages, check_stored_bits, read_run
    from laconic.recipes.compressing import compress as carry_out

    aim = Aim(budget, keep)
    if not options.runs:
        raise ConfigError("compress: name the folder of a finished run, or a recipe whose captioner is trained first")
    if not options.bits:
        raise ConfigError("--bits: give at least one number of bits, such as 4")
    for bits in options.bits:
        check_stored_bits(bits)
    if options.trial_epochs < 1:
        raise ConfigError(f"--trial-epochs {options.trial_epochs}: give at least 1")
    stages = Stages(
        epochs=options.epochs,
        bits=options.bits[0],
        learning_rate=options.learning_rate,
        encoder_learning_rate=options.encoder_learning_rate,
        measured=options.size_epochs,
    )
    first = options.runs[0]
    out = options.out or Path("runs") / f"{first.stem if _is_recipe(first) else first.resolve().name}_compressed"
    settle_in(options.threads)
    for run in options.runs:  # all of them, before the first recipe is trained
        _read_recipe(run) if _is_recipe(run) else read_run(run)
    console = console_for()
    with watching(console) as watch:
        runs = [_finished(run, out, options.cache, watch) for run in options.runs]
        candidates = [Candidate(run, bits) for run in runs for bits in options.bits]
        run = runs[0]
        if len(candidates) > 1:
            trials = choose(
                candidates, aim, out, options.cache, stages=stages, epochs=options.trial_epochs, watch=watch
            )
            run, stages = Path(trials[0].run), replace(stages, bits=trials[0].bits)
            console.print(trials_table(trials))
        found = carry_out(run, aim, out, options.cache, stages=stages, watch=watch)
    console.print(stages_table(found))
    console.print(f"laconic caption {out / MODEL} photo.jpg", markup=False, highlight=False, soft_wrap=True)


def _is_recipe(run: Path) -> bool:
    return run.suffix == ".toml"


def _finished(run: Path, out: Path, cache: Path, watch: "Watcher") -> Path:
    """The folder of a finished run: as it is named, or of a recipe that is carried out."""
    if not _is_recipe(run):
        return run
    from laconic.recipes.run import run_recipe

    folder = out / "dense" / run.stem
    run_recipe(_read_recipe(run), folder, cache, resume=True, watch=watch)
    return folder


def _read_recipe(file: Path) -> "Recipe":
    from laconic.config import read_toml
    from laconic.recipes.recipe import Recipe

    return read_toml(file, Recipe)


def size_of(text: str) -> int:
    """Bytes of "1MB", "900 kB" or "800000"; 0 of nothing. ConfigError for what is no size."""
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    size = float(match[1]) * UNITS.get(match[2].lower(), 0) if match else 0.0
    if not 1 <= size < math.inf:
        raise ConfigError(f"--budget {text}: is no size; give bytes, or a number with kB or MB, such as 1.3MB")
    return int(size)


def share_of(text: str) -> float:
    """0.98 of "98%" or "0.98"; 0 of nothing. ConfigError for what is no share."""
    if not text:
        return 0.0
    try:
        share = float(text.rstrip("% ")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ConfigError(f"--keep {text}: is no share; give a percentage such as 98%, or a number such as 0.98")
    return share


def trials_table(trials: "Sequence[Trial]") -> Table:
    """A row for each short stage, best first."""
    table = Table("trial", "bits", "weights gone", "file", "CIDEr", box=box.SIMPLE_HEAD)
    for trial in trials:
        size, score = f"{trial.bytes / 1e6:.2f} MB", f"{100 * trial.score:.2f}"
        table.add_row(trial.name, f"{trial.bits}", f"{trial.sparsity:.1%}", size, score)
    return table


def stages_table(found: "Compressed") -> Table:
    """A row for the dense captioner and for each stage; the chosen one has a mark."""
    table = Table("", "weights gone", "file", "smaller by", "CIDEr", "of dense", box=box.SIMPLE_HEAD)
    for made in (found.dense, *found.made):
        chosen = made == found.chosen
        table.add_row(
            f"{made.name}{' *' if chosen else ''}",
            f"{made.sparsity:.1%}",
            f"{made.bytes / 1e6:.2f} MB",
            f"{1 - made.bytes / found.dense.bytes:.1%}",
            f"{100 * made.score:.2f}",
            f"{made.score / found.dense.score:.1%}" if found.dense.score > 0 else "",
            style="bold" if chosen else "",
        )
    return table
