"""From a trained captioner to a file of a wanted size, or to the smallest one that is still good enough.

    compress(Path("runs/dense"), Aim(budget=1_000_000), Path("runs/small"), Path("cache"))
    compress(Path("runs/dense"), Aim(keep=0.98), Path("runs/small"), Path("cache"))

Both go by stages, each an ordinary run that begins where the last one ended: encoder and decoder are pruned together by
one score (Fisher), so that weights go where they matter least in either, while both learn on with the dense captioner
as their teacher; in the second half their weights learn to be the few whole numbers that the file has of them.

* A size tells its sparsity: the dense captioner is pruned, rounded and packed at trial sparsities, without training. A
  short stage then measures how much smaller or larger than that a trained file is, for learned steps round more
  weights to zero. Where the file comes out too large all the same, shorter stages prune it further.
* What a captioner is to keep is found by going down: each stage takes a share of what is left, and the last one that
  is good enough counts.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from laconic.captioner.packing import load
from laconic.compress.quantized.bits import FEWEST_BITS, FLOAT, MOST_BITS, check_bits
from laconic.errors import ConfigError, PruningError, TrainingError
from laconic.machine.files import atomically
from laconic.recipes.file_sizes import MOST_SPARSE, sizes, sparsity_for
from laconic.recipes.folders import DAMAGED, make_folder, read_recipe, write_json
from laconic.recipes.recipe import Pruning, Quantization, Recipe
from laconic.recipes.run import Watcher, run_recipe
from laconic.spec.manifest import COMPRESSED, MODEL, RESULT
from laconic.spec.model import REGIONS
from laconic.training.settings import Distillation, Scst

SCORE = "CIDEr"  # by which good enough is judged
ROOM = 0.03  # of a budget that the predicted size leaves free: learned masks and steps take a little more or less
MEASURED = "measured"  # folder of the short stage that tells how large a trained file is
TRIES = 3  # stages towards a budget
MOST_STAGES = 8  # down from a dense captioner: 0.6 of its weights first, and 0.4 of the rest each time, leave 1.1 %


@dataclass(frozen=True)
class Aim:
    """What is to come out; one of the two.

    Attributes:
        budget: bytes of the file at most.
        keep: share of the dense captioner's CIDEr that the file keeps at least, 0 < keep <= 1.
    """

    budget: int = 0
    keep: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.budget) == bool(self.keep):
            raise ConfigError("compress: give a budget in bytes, or the share of the score to keep; one of the two")
        if self.budget < 0 or not 0 <= self.keep <= 1:
            raise ConfigError(
                f"compress: budget = {self.budget}, keep = {self.keep}; give a budget above 0, or 0 < keep <= 1"
            )


@dataclass(frozen=True)
class Stages:
    """How a stage trains.

    Attributes:
        epochs: of the first stage, and of each stage that goes further down; stages that correct a size have half.
        bits: of each weight, from 2 to 8.
        learning_rate, encoder_learning_rate: of decoder and encoder.
        first: share of the weights that the first stage prunes where a score is to be kept.
        cut: share of what is left that each further stage prunes.
        measured: epochs of the short stage that measures a size; 0, or as many as a stage has, leaves it out.
    """

    epochs: int = 6
    bits: int = 4
    learning_rate: float = 5e-4
    encoder_learning_rate: float = 2e-4
    first: float = 0.6
    cut: float = 0.4
    measured: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.measured < 0 or not 0 <= self.first < 1 or not 0 < self.cut < 1:
            raise ConfigError(
                f"compress: epochs = {self.epochs}, measured = {self.measured}, first = {self.first}, "
                f"cut = {self.cut}; give at least 1 epoch, at least 0 to measure, and shares from 0 to 1"
            )
        rates = self.learning_rate, self.encoder_learning_rate
        if not all(0 < rate < math.inf for rate in rates):
            raise ConfigError(
                f"compress: learning_rate = {rates[0]}, encoder_learning_rate = {rates[1]}; give rates above 0: what "
                "is pruned has to learn on"
            )
        check_stored_bits(self.bits)


@dataclass(frozen=True)
class Made:
    """A captioner on the way.

    Attributes:
        name: of its run's folder.
        sparsity: share of the weights that were to go.
        bytes: of its packed file.
        score: CIDEr.
        good: whether it is what was asked for.
    """

    name: str
    sparsity: float
    bytes: int
    score: float
    good: bool


@dataclass(frozen=True)
class Compressed:
    """What came of it.

    Attributes:
        dense: what it began with.
        made: all stages, in their order.
        chosen: the one whose file is in the folder.
    """

    dense: Made
    made: tuple[Made, ...]
    chosen: Made


@dataclass(frozen=True)
class _Work:
    """A compression under way, and what all of its stages need."""

    dense: Recipe
    model: Path
    score: float
    folder: Path
    cache: Path
    aim: Aim
    stages: Stages
    watch: Watcher = field(default_factory=Watcher)

    def good(self, size: int, score: float) -> bool:
        return size <= self.aim.budget if self.aim.budget else score >= self.aim.keep * self.score

    def stage(self, name: str, sparsity: float, initial: Path, epochs: int) -> Made:
        """Carries one stage out, unless its folder holds it finished; one that was stopped goes on."""
        self.watch.say(f"{name}: {sparsity:.1%} of the weights are to go, {epochs} epochs")
        recipe = stage_recipe(
            self.dense, self.stages, sparsity=sparsity, initial=initial, teacher=self.model, epochs=epochs
        )
        result = run_recipe(recipe, self.folder / name, self.cache, resume=True, watch=self.watch)
        size, score = int(result["bytes"]), float(result["scores"][SCORE])
        return Made(name, sparsity, size, score, self.good(size, score))


def compress(
    run: Path, aim: Aim, out: Path, cache: Path, *, stages: Stages | None = None, watch: Watcher | None = None
) -> Compressed:
    """Compresses the captioner of a finished run. `out` gets a run for each stage, the file and `compressed.json`.

    What was stopped goes on when it is called again with the same arguments.

    Raises:
        ConfigError: no finished run of a captioner, or a budget that no file of it fits into.
        TrainingError: where `out` cannot be made or a stage's folder holds another run; where nothing that was made is
            what was asked for.
    """
    recipe, result = read_run(run)
    work = _Work(
        recipe, run / MODEL, float(result["scores"][SCORE]), out, cache, aim, stages or Stages(), watch or Watcher()
    )
    if aim.keep and not work.score > 0:
        raise ConfigError(f"{run}: its {SCORE} is {work.score}, so there is nothing to keep; train it for longer")
    make_folder(out)
    made = _to_budget(work) if aim.budget else _down(work)
    good = [one for one in made if one.good]
    dense = Made(str(run), 0.0, int(result["bytes"]), work.score, good=False)
    if not good:
        raise TrainingError(f"{out}: {_missed(work, made)}")
    found = Compressed(dense, made, max(good, key=lambda one: one.score) if aim.budget else min(good, key=_size))
    _copy(out / found.chosen.name / MODEL, out / MODEL)
    write_json(out / COMPRESSED, {"aim": asdict(aim), **asdict(found)})
    return found


def _copy(file: Path, to: Path) -> None:
    try:
        with atomically(to) as copied, file.open("rb") as made:
            shutil.copyfileobj(made, copied)
    except OSError as error:
        raise TrainingError(f"{to}: cannot be written ({error}); free the disk or give --out another") from error


def stage_recipe(
    dense: Recipe, stages: Stages, *, sparsity: float, initial: Path, teacher: Path, epochs: int
) -> Recipe:
    """The recipe of a stage of a dense captioner's compression."""
    where = part_to_prune(dense)
    return replace(
        dense,
        imagenet="",
        inherit="",
        encoder_from="",
        encoder=replace(dense.encoder, norm=False),  # packing folds it
        initial=str(initial),
        objective="cross_entropy",
        scst=Scst(),
        pruning=Pruning("fisher", where, options={"sparsity": round(sparsity, 5)}),
        distillation=Distillation(str(teacher)),
        quantization=Quantization(stages.bits, where),
        training=replace(
            dense.training,
            epochs=epochs,
            learning_rate=stages.learning_rate,
            encoder_learning_rate=0.0 if where == "decoder" else stages.encoder_learning_rate,
        ),
    )


def check_stored_bits(bits: int) -> None:
    """ConfigError for a number of bits that weights of a compressed file cannot have."""
    try:
        check_bits(bits)
    except PruningError as error:
        raise ConfigError(f"compress: {error}") from None
    if bits == FLOAT:
        raise ConfigError(f"compress: bits = {bits}; give {FEWEST_BITS} to {MOST_BITS}")


def part_to_prune(recipe: Recipe) -> Literal["all", "decoder"]:
    """What can be pruned: region features have no encoder."""
    return "decoder" if recipe.encoder.name == REGIONS else "all"


def _to_budget(work: _Work) -> tuple[Made, ...]:
    """Stages until a file fits."""
    wanted = work.aim.budget * (1 - ROOM)
    sparsity = _measured_sparsity(work, wanted)
    initial, epochs, made = work.model, work.stages.epochs, list[Made]()
    while len(made) < TRIES:
        made.append(work.stage(f"stage{len(made) + 1}", sparsity, initial, epochs))
        if made[-1].good:
            break
        sparsity = min(MOST_SPARSE, 1 - (1 - sparsity) * wanted / made[-1].bytes)
        initial, epochs = work.folder / made[-1].name / MODEL, max(1, work.stages.epochs // 2)
    return tuple(made)


def _measured_sparsity(work: _Work, wanted: float) -> float:
    """The least sparsity whose trained file is to have the wanted size: predicted, and set right by a measurement."""
    size_at = sizes(load(work.model), work.stages.bits, part_to_prune(work.dense))
    sparsity = sparsity_for(size_at, wanted)
    if not sparsity or not 0 < work.stages.measured < work.stages.epochs:
        return sparsity
    trained = work.stage(MEASURED, sparsity, work.model, work.stages.measured)
    share = trained.bytes / size_at(sparsity)
    work.watch.say(f"{MEASURED}: a trained file has {share:.0%} of the predicted size")
    return sparsity_for(size_at, max(wanted / share, size_at(MOST_SPARSE)))


def _down(work: _Work) -> tuple[Made, ...]:
    """Stages until one is no longer good enough."""
    sparsity, initial, made = work.stages.first, work.model, list[Made]()
    while len(made) < MOST_STAGES:
        made.append(work.stage(f"stage{len(made) + 1}", sparsity, initial, work.stages.epochs))
        if not made[-1].good:
            break
        sparsity = 1 - (1 - sparsity) * (1 - work.stages.cut)
        initial = work.folder / made[-1].name / MODEL
    return tuple(made)


def _missed(work: _Work, made: Sequence[Made]) -> str:
    if work.aim.budget:
        return (
            f"the smallest file has {min(one.bytes for one in made):,} bytes after {len(made)} stages, and the budget "
            f"is {work.aim.budget:,}; give fewer bits or a smaller captioner"
        )
    first = made[0]
    return (
        f"with {first.sparsity:.0%} of its weights gone {SCORE} is {100 * first.score:.1f}, "
        f"{first.score / work.score:.1%} of the dense captioner's, and {work.aim.keep:.1%} was to be kept; give more "
        "epochs"
    )


def _size(made: Made) -> int:
    return made.bytes


def read_run(run: Path) -> tuple[Recipe, Mapping[str, Any]]:
    """Recipe and result of a finished run of a captioner. ConfigError where it is none."""
    for name in (RESULT, MODEL):
        if not (run / name).is_file():
            raise ConfigError(f"{run}: no finished run of a captioner (it has no {name}); give the folder of one")
    try:
        recipe, result = read_recipe(run), json.loads((run / RESULT).read_text(encoding="utf8"))
        float(result["scores"][SCORE]), int(result["bytes"])
    except (*DAMAGED, KeyError) as error:
        raise ConfigError(f"{run}: damaged run ({error}); train it again") from None
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{run}: is a run that slims a Transformer, and captioners are compressed; see laconic slim")
    return recipe, result
