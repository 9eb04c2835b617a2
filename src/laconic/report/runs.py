"""Finished runs as a report reads them: recipe, log, result and captions of each folder.

Log and captions may be compressed. They and the packed file may be gone; what they alone can tell is then left out.
Recipes are read as plain tables, so runs of other versions of laconic can be compared, too. Knows nothing of tables,
figures or training.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from laconic import store
from laconic.errors import ConfigError, LaconicError
from laconic.metrics import CaptionQuality
from laconic.recipes.recipe import Quantization
from laconic.report.files import DAMAGED, read_captions, read_log, read_table
from laconic.report.settings import completed, flattened
from laconic.spec.captioners import form
from laconic.spec.manifest import CAPTIONS, LOG, MODEL, RECIPE, RESULT, STUDY


class Operations(NamedTuple):
    """Floating-point operations of one caption: of the encoder for one image, of the captioner for one search."""

    encoder: int
    decoder: int


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
        """Method, where, freeze and the method's options of the recipe, side by side."""
        return _side_by_side(self.settings["pruning"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe in today's form, with what older ones lack."""
        return completed(self.recipe)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The settings by dotted keys."""
        return flattened(self.settings)

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
    def bits(self) -> tuple[int, ...]:
        """Numbers of bits of weights that learned in few, each once, rising; none where all are float."""
        return tuple(sorted(set(Quantization(**self.settings["quantization"]).table.values()) - {0}))

    @property
    def is_dense(self) -> bool:
        """Neither pruned nor quantised."""
        return bool(self.pruning["method"] == "none") and not self.bits

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

    def pruning_beside(self, name: str) -> dict[str, Any]:
        """`pruning` of the run of this name in the same folder; that of no method where it cannot be read."""
        return _side_by_side(completed(self.recipe_beside(name))["pruning"])

    def recipe_beside(self, name: str) -> Mapping[str, Any]:
        """Recipe of the run of this name in the same folder; empty where there is none, or it cannot be read."""
        try:
            recipe = read_table(self.folder.parent / name / RECIPE)
            int(recipe["training"]["epochs"]), completed(recipe)  # what is asked of it is there
        except (*DAMAGED, AttributeError):
            return {}
        return recipe

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @cached_property
    def matrices(self) -> tuple[Matrix, ...]:
        """Matrices and convolutions, in the order of the model."""
        if "matrices" not in self.result:  # version 0.1.0 did not write them down
            held = [t for t in store.inspect(self.model).tensors if len(t.shape) > 1 and t.tied_to is None]
            return tuple(Matrix(t.name, math.prod(t.shape), t.non_zeros) for t in held)
        rows = self.result["matrices"]
        return tuple(Matrix(str(row["name"]), math.prod(row["shape"]), int(row["non_zeros"])) for row in rows)

    @property
    def operations(self) -> Operations | None:
        """Of a caption of nine words; None where the run did not count them, as version 0.1.0 did not."""
        counted = self.result.get("operations")
        return None if counted is None else Operations(int(counted["encoder"]), int(counted["decoder"]))

    @property
    def quality(self) -> CaptionQuality | None:
        """Of its captions, as the run itself wrote it down; None of runs of versions that did not."""
        held = self.result.get("quality")
        return None if held is None else CaptionQuality(**{key.name: held[key.name] for key in fields(CaptionQuality)})

    @cached_property
    def captions(self) -> dict[int | str, str] | None:
        """Caption of each validation image; None where the file of them was not kept."""
        return read_captions(self.folder / CAPTIONS)

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
    for folder in run_folders(folders):
        if not (folder / RESULT).is_file():
            notes.append(f"{folder}: left out, not finished (no {RESULT})")
            continue
        try:
            found.append(_read(folder))
        except (*DAMAGED, AttributeError, LaconicError) as error:
            notes.append(f"{folder}: left out, damaged ({type(error).__name__}: {error})")
    if not found:
        given = ", ".join(str(folder) for folder in folders)
        raise ConfigError("; ".join([f"no finished run in {given}; give folders that `laconic train` filled", *notes]))
    return sorted(_named(found), key=lambda run: (run.name, str(run.folder))), notes


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs, finished or not, among these and directly within them, each once.

    Raises ConfigError where one does not exist or holds no run.
    """
    return list({path.resolve(): path for given in folders for path in _run_folders(given)}.values())


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
    recipe, result = read_table(folder / RECIPE), read_table(folder / RESULT)
    run = FinishedRun(folder.name, folder, recipe, result, tuple(read_log(folder / LOG)), study_command(folder))
    if not run.matrices:
        raise ValueError("it has no matrix")
    # whatever a report asks for is there, or the run is left out
    captioner_key(run), captioner_title(run), run.seed, run.distilled, run.bits, run.captions
    [recipe["data"][key] for key in ("root", "train", "val")]
    numbers = [*(run.operations or ()), *_numbers(run.quality)]
    numbers += [run.non_zeros(), run.weights(), int(result["bytes"]), run.budget, run.sparsity]
    numbers += [float(result["scores"][name]) for name in {"CIDEr", "Bleu_4", *result["scores"]}]
    numbers += [float(value) for value in result["seconds"].values()]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is not finite")
    if not all(matrix.weights > 0 for matrix in run.matrices):
        raise ValueError("a matrix has no weights")
    return run


def study_command(folder: Path) -> str:
    """What carries out the study that the run in this folder belongs to; empty for a run on its own."""
    study = folder.parent / STUDY
    if not study.is_file():
        return ""
    planned = read_table(study)
    return str(planned["command"]) if folder.name in planned["runs"] else ""


def _numbers(quality: CaptionQuality | None) -> list[float]:
    """Those of a stored quality; TypeError or ValueError where one is something else."""
    held = {} if quality is None else asdict(quality)
    return [float(value) for key, value in held.items() if key != "novel_share" or value is not None]


def _side_by_side(pruning: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in pruning.items() if key != "options"}, **pruning["options"]}


def _named(runs: Sequence[FinishedRun]) -> Iterator[FinishedRun]:
    """With the names of as many folders above as tell it apart."""
    paths = [run.folder.resolve().parts for run in runs]
    for run, path in zip(runs, paths, strict=True):
        depth = next(n for n in range(1, len(path) + 1) if [other[-n:] for other in paths].count(path[-n:]) == 1)
        yield replace(run, name="/".join(path[-depth:]))


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
