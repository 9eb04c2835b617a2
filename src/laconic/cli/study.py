"""The verbs of experiments: `study` and `report`. Knows how they are shown and asked for, not what they do."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from laconic.cli.console import console_for
from laconic.cli.paths import Overwrite, ReportFolder, StudyFolder
from laconic.cli.progress import Lines, training_facts
from laconic.config import read_toml
from laconic.errors import ConfigError, TrainingError
from laconic.spec.manifest import STUDY

if TYPE_CHECKING:
    from laconic.recipes.processes import Outcome, StudyWatcher
    from laconic.recipes.study import StudyRun
    from laconic.report.runs import FinishedRun
    from laconic.report.slim_runs import SlimRun

FAILED = 1


@dataclass(frozen=True)
class Study:
    """Carries out all runs of a study. A run that is finished already is not repeated."""

    study: Annotated[Path, Positional, arg(metavar="STUDY.toml")]
    """A TOML file with a base recipe and the runs that differ from it."""
    out: StudyFolder = None
    """Folder in which each run gets a folder; runs/<name of the study> by default."""
    cache: Annotated[Path, arg(metavar="DIR")] = Path("cache")
    """Folder of cached images and image features, which all runs share."""
    jobs: int = 1
    """How many runs to carry out at the same time."""
    threads: int = 0
    """Processor threads of each run; 0 for all."""
    only: UseAppendAction[tuple[str, ...]] = ()
    """Carry out only the run of this name, or runs that match a pattern such as 'smp_*', and the runs that these need,
    unless they are finished. May be repeated."""
    check: FlagCreatePairsOff[bool] = False
    """Train nothing: check the study and the files that its runs start from, and list the runs."""


def study(options: Study) -> int:
    """Carries out a study; 1 where a run failed."""
    from laconic.recipes.folders import make_folder, write_json
    from laconic.recipes.study import only, read_study
    from laconic.recipes.study_files import check_files

    if options.threads < 0:
        raise ConfigError(f"--threads {options.threads}: give 0 for all, or at least 1")
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: give at least 1")
    folder = options.out or Path("runs") / options.study.stem
    planned = read_study(options.study, folder)
    runs = only(planned, options.only, partial(_is_finished, folder)) if options.only else planned
    check_files(runs, folder)
    console = console_for()
    from laconic.recipes.kinds import check_recipe  # and with it torch, once the file itself is right

    for run in planned:
        check_recipe(run.recipe, f"{options.study}: run {run.name!r}")
    if options.check:
        for run in runs:
            needs = f"  after {', '.join(run.needs)}" if run.needs else ""
            console.print(f"{run.name}{needs}", markup=False, highlight=False, soft_wrap=True)
        return 0
    make_folder(folder)
    from laconic.recipes.processes import Workshop, carry_out

    out = ["--out", str(options.out)] if options.out else []
    command = shlex.join(["laconic", "study", str(options.study), *out])
    write_json(folder / STUDY, {"command": command, "runs": [run.name for run in planned]})
    shop = Workshop(folder, options.cache, options.jobs, options.threads)
    with showing(console, len(runs)) as watch:
        outcomes = carry_out(runs, shop, watch)
    failed = [outcome.name for outcome in outcomes if outcome.result is None]
    if failed:
        line = f"{len(failed)} of {len(runs)} runs have no result; once the cause is removed, run the study again"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        return FAILED
    report = shlex.join(["laconic", "report", str(folder), "-o", f"results/{folder.name}"])
    console.print(f"All {len(runs)} runs are finished. Next:\n  {report}", markup=False, highlight=False)
    return 0


def _is_finished(folder: Path, run: "StudyRun") -> bool:
    from laconic.recipes.folders import finished

    try:
        return finished(folder / run.name, run.recipe) is not None
    except TrainingError:  # check_files tells
        return False


@contextmanager
def showing(console: Console, runs: int) -> "Iterator[StudyWatcher]":
    """A line for each run that has ended; for those under way a bar in a terminal, a line now and then elsewhere."""
    from laconic.recipes.processes import StudyWatcher

    lines = None if console.is_terminal else Lines(console)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    tasks: dict[str, tuple[str, TaskID]] = {}
    ended: list[str] = []

    def stage(name: str, stage: str, done: int, of: int, facts: str = "") -> None:
        if lines is not None:
            lines.show(f"{name}  {stage}", done, of, facts)
            return
        if name not in tasks or tasks[name][0] != stage:
            remove(name)
            tasks[name] = stage, bars.add_task(f"{name}  {stage}", total=of)
        bars.update(tasks[name][1], completed=done, total=of, description=f"{name}  {facts or stage}")

    def remove(name: str) -> None:
        if name in tasks:
            bars.remove_task(tasks.pop(name)[1])

    def end(outcome: "Outcome") -> None:
        remove(outcome.name)
        ended.append(outcome.name)
        line = f"{len(ended):{len(str(runs))}} of {runs}  {outcome_line(outcome)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with bars:
        yield StudyWatcher(stage, lambda name, at: stage(name, "training", at.step, at.steps, training_facts(at)), end)


def outcome_line(outcome: "Outcome") -> str:
    """Such as "smp_95  CIDEr 43.7  346,000 non-zeros  25.1 min"."""
    if outcome.result is None:
        return f"{outcome.name}  {outcome.status}: {' '.join(outcome.reason.split())}"
    facts = _facts(outcome.result)
    facts.append("finished before" if outcome.status == "found" else f"{outcome.seconds / 60:.1f} min")
    return "  ".join([outcome.name, *facts])


def _facts(result: Mapping[str, Any]) -> list[str]:
    """Score and size of a run, of either kind of recipe."""
    if "selection" in result:
        name = result["selection"]
        return [f"{name} {result['scores'][name]:.1f}", f"{result['parameters']['now']:,} parameters"]
    counts = result["non_zeros"]
    return [f"CIDEr {100 * result['scores']['CIDEr']:.1f}", f"{counts['encoder'] + counts['decoder']:,} non-zeros"]


@dataclass(frozen=True)
class Report:
    """Turns finished runs into a CSV file, tables, figures and captioned photos."""

    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUNS_DIR")]
    """Folders of finished runs, or folders that hold such folders."""
    out: ReportFolder
    """Folder of the report: a new one, an empty one, or an earlier report."""
    recipes: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="DIR")] = (Path("recipes"),)
    """Folders of recipes; the report names the recipe of each run it finds there."""
    gallery: bool = True
    """Show photos with their captions. --no-gallery leaves out whatever belongs to the data set, so that the report may
    be published."""
    overwrite: Overwrite = False


def report(options: Report) -> None:
    """Writes a report and says what is in it and what is not."""
    from laconic.report.compose import write_report

    if not options.runs:
        raise ConfigError("give at least one folder of runs")
    console = console_for()
    commands = recipe_commands(options.recipes)
    written = write_report(options.runs, options.out, lambda run: command_of(run, commands), gallery=options.gallery)
    for line in written:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def recipe_commands(folders: tuple[Path, ...]) -> list[tuple[object, str]]:
    """Every readable recipe of the folders, and of those directly within them, with the command that carries it out."""
    found: list[tuple[object, str]] = []
    for path in sorted(path for folder in folders for form in ("*.toml", "*/*.toml") for path in folder.glob(form)):
        recipe = _recipe_of(path)
        if recipe is not None:
            found.append((recipe, shlex.join(["laconic", "train", str(path)])))
    return found


def _recipe_of(path: Path) -> object | None:
    """The recipe in a file, of a captioner or of a slim model; None where it is neither, such as a study."""
    from laconic.recipes.recipe import Recipe
    from laconic.tasks.settings import SlimRecipe

    for kind in (Recipe, SlimRecipe):
        try:
            return read_toml(path, kind)
        except ConfigError:
            continue  # a recipe of another version describes none of these runs
    return None


def command_of(run: "FinishedRun | SlimRun", commands: list[tuple[object, str]]) -> str:
    """The command that repeats a run: of its study, else of a recipe with the same content; empty where unknown."""
    from laconic.recipes.folders import DAMAGED, read_recipe

    if run.study_command:
        return run.study_command
    try:
        recipe = read_recipe(run.folder)
    except DAMAGED:
        return ""
    return next((command for known, command in commands if known == recipe), "")
