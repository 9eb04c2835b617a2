"""Finished runs as a report reads them: recipe, log and result of each folder.

The packed file may be gone; what it alone can tell, how the weights are distributed, is then left out. Recipes are
read as plain tables, so runs of other versions of laconic can be compared, too. Knows nothing of tables, figures or
training.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from laconic.captioner.accounting import Operations, matrices
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError, LaconicError
from laconic.recipes.older import DEFAULTS as OPTIONS
from laconic.recipes.older import in_todays_form
from laconic.recipes.recipe import Pruning
from laconic.spec.captioners import form
from laconic.spec.manifest import CAPTIONS, LOG, MODEL, RECIPE, RESULT, STUDY
from laconic.training.settings import Distillation, Training

FILES = (RECIPE, RESULT, CAPTIONS)
MAX_JSON = 64 << 20  # bytes
DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)  # what reading damaged JSON raises
DEFAULTS = {  # for what older recipes lack
    "pruning": asdict(Pruning()),
    "training": asdict(Training()),
    "decoding": asdict(Decoding()),
    "distillation": asdict(Distillation()),
}


@dataclass(frozen=True)
class Matrix:
    """A matrix of a model: its name, its number of weights, and how many of them are not zero."""

    name: str
    weights: int
    non_zeros: int


@dataclass(frozen=True)
class FinishedRun:
    """One run.

    Attributes:
        name: its folder's name, with the parent's where two runs share one.
        recipe, result: the JSON tables of its folder.
        log: rows of the training log, in order.
        study_command: what carries out the study that the run belongs to; empty for a run on its own.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    result: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]] = field(repr=False)
    study_command: str = ""

    @property
    def pruning(self) -> dict[str, Any]:
        """The recipe's [pruning], the options of its method beside the others."""
        table = dict(self.settings["pruning"])
        return {"sparsity": 0.0, **OPTIONS, **table.pop("options"), **table}

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe in today's form, with what older ones lack."""
        recipe = in_todays_form(self.recipe)
        return {**recipe, **{key: {**held, **recipe.get(key, {})} for key, held in DEFAULTS.items()}}

    @cached_property
    def options(self) -> dict[str, Any]:
        """The settings by dotted keys."""
        return _flatten({**self.settings, "pruning": self.pruning})

    @property
    def sparsity(self) -> float:
        """Of `parts`: the target, or what is in the file where masks, or some, are frozen; 0 for a dense run."""
        if self.is_dense:
            return 0.0
        if self.pruning["method"] != "frozen" and self.pruning["freeze"] == "none":
            return self.target
        masked = [t for t in self.matrices if t.name.split(".")[0] in self.parts]
        return round(1 - sum(t.non_zeros for t in masked) / max(1, sum(t.weights for t in masked)), 4)

    @property
    def target(self) -> float:
        """Sparsity that the method was to reach, of those weights of `parts` that are not frozen."""
        return float(self.pruning["sparsity"])

    @property
    def objective(self) -> str:
        """ "cross_entropy" or "scst"."""
        return str(self.recipe.get("objective", "cross_entropy"))

    @property
    def distilled(self) -> bool:
        """Whether a teacher took part."""
        return bool(self.settings["distillation"]["teacher"])

    @property
    def is_dense(self) -> bool:
        return bool(self.pruning["method"] == "none")

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the model that are pruned."""
        where = self.pruning["where"]
        return ("encoder", "decoder") if where == "all" else (where,)

    @property
    def cider(self) -> float:
        return float(self.result["scores"]["CIDEr"])

    @property
    def minutes(self) -> float:
        """Of training."""
        return float(self.result["seconds"].get("training", 0.0)) / 60

    def non_zeros(self, parts: Sequence[str] = ("encoder", "decoder")) -> int:
        return sum(int(self.result["non_zeros"][part]) for part in parts)

    def weights(self, parts: Sequence[str] = ("encoder", "decoder")) -> int:
        return sum(int(self.result["non_zeros"][f"{part}_weights"]) for part in parts)

    @property
    def seed(self) -> int:
        """Of the initial weights, batches and noise."""
        return int(self.settings["training"]["seed"])

    @cached_property
    def budget(self) -> int:
        """Epochs of training, with those of the runs that it goes on from, as far as these lie beside it."""
        epochs, recipe, passed = 0, self.recipe, {"", self.folder.name}
        while recipe:
            epochs += int(recipe["training"]["epochs"])
            before = Path(str(recipe.get("initial", ""))).parent.name  # the path is that of its packed file
            recipe = {} if before in passed else self.recipe_beside(before)
            passed.add(before)
        return epochs

    def recipe_beside(self, name: str) -> Mapping[str, Any]:
        """Recipe of the run of this name in the same folder; empty where there is none, or it cannot be read."""
        try:
            recipe = _table(self.folder.parent / name / RECIPE)
            int(recipe["training"]["epochs"]), dict(recipe.get("pruning", {}))  # what is asked of it is there
        except DAMAGED:
            return {}
        return recipe

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Matrices and convolutions, in the order of the model."""
        rows = self.result["matrices"] if "matrices" in self.result else matrices(self.model)
        return tuple(Matrix(str(row["name"]), math.prod(row["shape"]), int(row["non_zeros"])) for row in rows)

    @property
    def operations(self) -> Operations | None:
        """Of a caption of nine words; None where the run did not count them, as version 0.1.0 did not."""
        counted = self.result.get("operations")
        return None if counted is None else Operations(int(counted["encoder"]), int(counted["decoder"]))

    @property
    def loss(self) -> list[tuple[int, float]]:
        """(step, loss) over the captions; of runs with a teacher their cross-entropy, without the teacher's part."""
        return self.curve("cross_entropy") or self.curve("loss")

    def curve(self, key: str) -> list[tuple[int, float]]:
        """(step, value) of the numbers that the log holds under `key`."""
        return [(row["step"], float(row[key])) for row in self.log if isinstance(row.get(key), int | float)]


def read_runs(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """Runs in the folders, or in the folders directly within them, sorted by name; and a line for each left out.

    Raises:
        ConfigError: where a folder does not exist or none holds a finished run.
    """
    found: list[FinishedRun] = []
    notes: list[str] = []
    for folder in {path.resolve(): path for given in folders for path in _run_folders(given)}.values():
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            notes.append(f"{folder}: left out, not finished (no {missing[0]})")
            continue
        try:
            found.append(_read(folder))
        except (*DAMAGED, AttributeError, LaconicError) as error:
            notes.append(f"{folder}: left out, damaged ({type(error).__name__}: {error})")
    if not found:
        given = ", ".join(str(folder) for folder in folders)
        raise ConfigError("; ".join([f"no finished run in {given}; give folders that `laconic train` filled", *notes]))
    return sorted(_named(found), key=lambda run: (run.name, str(run.folder))), notes


def _run_folders(given: Path) -> Iterator[Path]:
    if not given.is_dir():
        raise ConfigError(f"{given}: no such folder; give the folder of a run, or one that holds runs")
    if (given / RECIPE).exists():
        yield given
        return
    inside = sorted(path.parent for path in given.glob(f"*/{RECIPE}"))
    if not inside:
        raise ConfigError(f"{given}: no run in it; give the folder of a run, or one that holds runs")
    yield from inside


def _read(folder: Path) -> FinishedRun:
    recipe, result = _table(folder / RECIPE), _table(folder / RESULT)
    study = folder.parent / STUDY
    command = ""
    if study.is_file():
        planned = _table(study)
        command = str(planned["command"]) if folder.name in planned["runs"] else ""
    run = FinishedRun(folder.name, folder, recipe, result, tuple(read_log(folder / LOG)), command)
    if not run.matrices:
        raise ValueError("it has no matrix")
    if not captions_of(run):
        raise ValueError(f"{CAPTIONS} is empty")
    # whatever a report asks for is there, or the run is left out
    captioner_key(run), captioner_title(run), run.seed, run.distilled
    [recipe["data"][key] for key in ("root", "train", "val")]
    operations = 0 if run.operations is None else run.operations.total
    numbers = [operations, run.non_zeros(), run.weights(), int(result["bytes"]), run.budget, run.sparsity]
    numbers += [float(result["scores"][name]) for name in {"CIDEr", "Bleu_4", *result["scores"]}]
    numbers += [float(value) for value in result["seconds"].values()]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is not finite")
    if not all(matrix.weights > 0 for matrix in run.matrices):
        raise ValueError("a matrix has no weights")
    return run


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path.name} has more than {MAX_JSON} bytes")
    return path.read_text(encoding="utf8")


def _table(path: Path) -> dict[str, Any]:
    table = json.loads(_text(path))
    if not isinstance(table, dict):
        raise ValueError(f"{path.name} holds no table")
    return table


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a training log; a line that was cut short is passed over, a missing log is empty."""
    if not path.is_file():
        return
    for line in _text(path).splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def _named(runs: Sequence[FinishedRun]) -> Iterator[FinishedRun]:
    """With the names of as many folders above as tell it apart."""
    paths = [run.folder.resolve().parts for run in runs]
    for run, path in zip(runs, paths, strict=True):
        depth = next(n for n in range(1, len(path) + 1) if [other[-n:] for other in paths].count(path[-n:]) == 1)
        yield replace(run, name="/".join(path[-depth:]))


def captions_of(run: FinishedRun) -> dict[int | str, str]:
    """Caption of each validation image. Raises DataError where the run's file of them is missing or damaged."""
    path = run.folder / CAPTIONS
    try:
        return {row["image_id"]: str(row["caption"]) for row in json.loads(_text(path))}
    except DAMAGED as error:
        raise DataError(f"{path}: no captions can be read ({error}); train the run again") from None


# Which runs belong together


def captioner_key(run: FinishedRun) -> str:
    """Equal for runs of the same captioner, data and objective whose scores are of the same search.

    What may differ is how it was trained and pruned.
    """
    encoder, decoder = run.recipe["encoder"], run.recipe["decoder"]
    kind, search = form(decoder["name"], decoder["options"]), run.settings["decoding"]
    seen = [encoder.get(key) for key in ("name", "size", "stride")]
    weights = [run.weights([part]) for part in ("encoder", "decoder")]
    data = {key: value for key, value in run.recipe["data"].items() if value}  # older recipes lack some
    return json.dumps([data, seen, kind, weights, run.objective, search], sort_keys=True)


def captioner_title(run: FinishedRun, runs: Sequence[FinishedRun] = ()) -> str:
    """Such as "soft attention on mobilenet v2, flickr8k".

    With its size where `runs` are of several such captioners, its beam where these are searched with several, and its
    epochs where pruned ones are of several budgets.
    """
    recipe, objective = run.recipe, "" if run.objective == "cross_entropy" else f", {run.objective.upper()}"
    title = f"{recipe['decoder']['name']} on {recipe['encoder']['name']}, {recipe['data']['name']}"
    title = title.replace("_", " ") + objective
    alike = [one for one in runs if captioner_title(one) == title]
    beams = {one.settings["decoding"]["beam"] for one in alike}
    budgets = {one.budget for one in runs if not one.is_dense and captioner_key(one) == captioner_key(run)}
    size = f", {run.weights():,} weights" if len({one.weights() for one in alike}) > 1 else ""
    beam = f", beam {run.settings['decoding']['beam']}" if len(beams) > 1 else ""
    return title + size + beam + (f", {run.budget} epochs" if len(budgets) > 1 else "")


def dense_counterpart(run: FinishedRun, runs: Sequence[FinishedRun]) -> FinishedRun | None:
    """The dense run to compare with: same captioner, data and search, and same budget where there is such.

    One without a teacher where there is such, also for runs that had one. Of these one of the same seed where there is
    such, and of several the best one, which is the hardest comparison.
    """
    alike = [one for one in runs if one.is_dense and captioner_key(one) == captioner_key(run)]
    dense = [one for one in alike if not one.distilled] or alike
    equal = [one for one in dense if one.budget == run.budget] or dense
    paired = [one for one in equal if one.seed == run.seed] or equal
    return max(paired, key=lambda one: (one.cider, one.name), default=None)
