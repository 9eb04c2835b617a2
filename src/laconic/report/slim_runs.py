"""Finished runs that slimmed a Transformer, and their dense controls, as a report reads them.

Read as plain tables, recipe and result, like those of captioners. A result holds

    selection             name of the score that the task is judged by, one of
    scores, baselines     {name: value}; of the final model, and of what does not look
    parameters, macs      {"dense": count, "now": count, ...} of the whole model
    widths                {group: {"part": name, "size": units, "width": units left}}; none of a dense run

Knows nothing of tables, figures or training.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from laconic.errors import ConfigError
from laconic.report.files import DAMAGED, read_table
from laconic.report.runs import study_command
from laconic.spec.manifest import RECIPE, RESULT

TIMING = "latency.json"  # in the folder of a run: what benchmarks/upop.py measured of it
TASKS = {  # the task of a recipe: what a report calls it
    "classify": "classification",
    "segment": "segmentation",
    "retrieval": "retrieval",
    "caption": "captioning",
    "vqa": "vqa",
    "nlvr2": "nlvr2",
}
SEED = 1  # of a recipe that does not say one

When = Literal["now", "dense"]
_WHEN: tuple[When, ...] = ("now", "dense")


@dataclass(frozen=True)
class SlimGroup:
    """What is left of one attention module or feed-forward network: `width` of `size` units."""

    name: str
    part: str
    size: int
    width: int

    @property
    def kept(self) -> float:
        """Share of the units, 0 to 1."""
        return self.width / self.size


@dataclass(frozen=True)
class SlimRun:
    """One run.

    Attributes:
        name: its folder's name.
        recipe, result: the JSON tables of its folder.
        study_command: what carries out the study that the run belongs to; empty for a run on its own.
        timing: the table of its latency; empty where it was not measured.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    result: Mapping[str, Any]
    study_command: str
    timing: Mapping[str, Any]

    @property
    def task(self) -> str:
        """Such as "classification"; KeyError for one that is not in TASKS, since files are named by it."""
        return TASKS[self.recipe["task"]]

    @property
    def method(self) -> str:
        """As in the recipe; "dense" where nothing was slimmed."""
        method = str(_table(self.recipe, "slim").get("method", "none"))
        return "dense" if method == "none" else method

    @property
    def is_dense(self) -> bool:
        return self.method == "dense"

    @property
    def ratio(self) -> float:
        """Share of the budget that was to go; 0 for a dense run."""
        return 0.0 if self.is_dense else float(_table(self.recipe, "slim").get("ratio", 0.5))

    @property
    def budget(self) -> str:
        """What the ratio is a share of; empty for a dense run."""
        return "" if self.is_dense else str(_table(self.recipe, "slim").get("budget", "parameters"))

    @property
    def seed(self) -> int:
        return int(_table(self.recipe, "training").get("seed", SEED))

    @property
    def metric(self) -> str:
        """Name of the score that the task is judged by."""
        return str(self.result["selection"])

    @property
    def value(self) -> float:
        """That score of the final model, the higher the better."""
        return float(self.result["scores"][self.metric])

    @property
    def scores(self) -> dict[str, float]:
        return {str(name): float(value) for name, value in self.result["scores"].items()}

    @property
    def baselines(self) -> dict[str, float]:
        """What the score is without looking, such as {"chance": 1.0, "no image": 2.3}."""
        return {str(name): float(value) for name, value in self.result.get("baselines", {}).items()}

    def parameters(self, when: When = "now") -> int:
        """Of the whole model, now or before it was slimmed."""
        return int(self.result["parameters"][when])

    def macs(self, when: When = "now") -> int:
        """Multiply-adds of one example, now or before it was slimmed."""
        return int(self.result["macs"][when])

    @property
    def latency(self) -> float | None:
        """CPU time of one example as a share of the dense control's; None where it was not measured."""
        ratio = self.timing.get("ratio")
        return 1 / float(ratio) if ratio else None

    @cached_property
    def groups(self) -> tuple[SlimGroup, ...]:
        """In the order of the model; empty for a dense run."""
        rows = self.result.get("widths", {})
        return tuple(SlimGroup(str(n), str(r["part"]), int(r["size"]), int(r["width"])) for n, r in rows.items())

    @cached_property
    def epochs(self) -> int:
        """Of all training: search and training, what came before in its own folder, and the runs it goes on from."""
        return _epochs(self.recipe, self.folder, set())


def is_slim(folder: Path) -> bool:
    """Whether the folder is that of a run with a task; False where its recipe cannot be read."""
    try:
        return "task" in read_table(folder / RECIPE)
    except DAMAGED:
        return False


def read_slim_runs(folders: Iterable[Path]) -> tuple[list[SlimRun], list[str]]:
    """Runs in these folders, sorted by task and name; and a line for each that is left out.

    Raises:
        ConfigError: where none of them is finished.
    """
    found: list[SlimRun] = []
    notes: list[str] = []
    for folder in folders:
        if not (folder / RESULT).is_file():
            notes.append(f"{folder}: left out, not finished (no {RESULT})")
            continue
        try:
            found.append(_read(folder))
        except (*DAMAGED, AttributeError) as error:
            notes.append(f"{folder}: left out, damaged ({type(error).__name__}: {error})")
    if not found:
        raise ConfigError("; ".join(["no finished run; give folders that `laconic train` filled", *notes]))
    return sorted(found, key=lambda run: (run.task, run.name, str(run.folder))), notes


def _read(folder: Path) -> SlimRun:
    timing = read_table(folder / TIMING) if (folder / TIMING).is_file() else {}
    tables = read_table(folder / RECIPE), read_table(folder / RESULT)
    run = SlimRun(folder.name, folder, *tables, study_command(folder), timing)
    # whatever a report asks for is there, or the run is left out
    counts = [count(when) for count in (run.parameters, run.macs) for when in _WHEN]
    latency = 1.0 if run.latency is None else run.latency
    numbers = [run.value, run.ratio, run.seed, run.epochs, latency, *run.scores.values(), *run.baselines.values()]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is not finite")
    if not (run.task and latency > 0 and min(counts) > 0):
        raise ValueError("a model without parameters or multiply-adds, or one that takes no time")
    if not all(0 <= group.width <= group.size and group.size > 0 for group in run.groups):
        raise ValueError("a width is not within 0 and the dense one")
    return run


def _epochs(recipe: Mapping[str, Any], folder: Path, passed: set[str]) -> int:
    """Epochs of a recipe, and of the runs beside it that it begins with."""
    initial = Path(str(_table(recipe, "model").get("initial", "")))
    epochs = int(_table(recipe, "training")["epochs"])
    if _table(recipe, "slim").get("method", "none") != "none":
        epochs += int(_table(recipe, "search").get("epochs", 0))
    if not initial.parts:
        return epochs + int(_table(recipe, "dense").get("epochs", 0))
    before = initial.parent.name if initial.name == "model" else initial.name
    if before in passed | {"", folder.name}:
        return epochs
    try:
        return epochs + _epochs(read_table(folder.parent / before / RECIPE), folder, passed | {before})
    except (*DAMAGED, AttributeError):
        return epochs  # a model from elsewhere, alike for all runs that begin with it


def _table(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = recipe.get(name, {})
    if not isinstance(found, Mapping):
        raise TypeError(f"[{name}] of the recipe is no table")
    return found


# Which runs belong together


def same_model(run: SlimRun) -> str:
    """Equal for runs of one task, data set and dense model, whatever was slimmed of it and how it was trained."""
    data = {key: value for key, value in _table(run.recipe, "data").items() if value}
    return json.dumps([run.task, data, run.parameters("dense"), run.macs("dense")], sort_keys=True)


def control_of(run: SlimRun, runs: Sequence[SlimRun]) -> SlimRun | None:
    """The dense run to compare with: same model and data, and exactly as many epochs of training altogether.

    One of the same seed where there is such, and of several the best one, which is the hardest comparison. A dense run
    with less training is no control, so None where there is none with as much.
    """
    alike = [one for one in runs if one.is_dense and same_model(one) == same_model(run) and one.epochs == run.epochs]
    paired = [one for one in alike if one.seed == run.seed] or alike
    return max(paired, key=lambda one: (one.value, one.name), default=None)
