"""Which of several trained captioners, and in how many bits, to compress: told by one short stage of each.

    best = choose([Candidate(Path("runs/mobilenet"), 4), Candidate(Path("runs/lite0"), 3)], aim, out, cache)

All candidates become files of one size, so that encoders, sparsities and bits compete for the same bytes: fewer bits
leave room for more weights, a smaller encoder needs less of both. A finished trial is not repeated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from laconic.captioner.packing import load
from laconic.errors import ConfigError
from laconic.recipes.compressing import (
    ROOM,
    SCORE,
    Aim,
    Stages,
    part_to_prune,
    read_run,
    stage_recipe,
)
from laconic.recipes.file_sizes import predicted_bytes, sizes, sparsity_for
from laconic.recipes.folders import make_folder, write_json
from laconic.recipes.recipe import Recipe
from laconic.recipes.run import Watcher, run_recipe
from laconic.spec.manifest import MODEL

TRIALS = "trials"  # folder of their runs
CHOICE = "choice.json"


@dataclass(frozen=True)
class Candidate:
    """A finished run, and bits of each weight."""

    run: Path
    bits: int


@dataclass(frozen=True)
class Trial:
    """What a short stage of a candidate came to.

    Attributes:
        name: of the trial's run.
        run: that it began with.
        sparsity: at which its file has the wanted size.
        bytes: of its file.
        score: CIDEr.
    """

    name: str
    run: str
    bits: int
    sparsity: float
    bytes: int
    score: float


def choose(
    candidates: Sequence[Candidate],
    aim: Aim,
    out: Path,
    cache: Path,
    *,
    stages: Stages | None = None,
    epochs: int = 1,
    watch: Watcher | None = None,
) -> tuple[Trial, ...]:
    """A trial of each candidate, best first; `out` gets their runs and `choice.json`.

    Args:
        aim: its budget is the size of all trials; without one it is that of the first candidate's first stage.
        epochs: of each trial.

    Raises:
        ConfigError: no candidate, two that are called alike, or a size that one of them cannot have.
        TrainingError: where `out` cannot be made.
    """
    stages, watch = stages or Stages(), watch or Watcher()
    names = [f"{candidate.run.resolve().name}_{candidate.bits}bits" for candidate in candidates]
    if not candidates or len(set(names)) < len(names):
        raise ConfigError(f"compress: {', '.join(names) or 'nothing'} to choose from; give runs of different names")
    make_folder(out)
    size, trials = _size(aim, candidates[0], stages), []
    recipes = [_recipe(candidate, size, stages, epochs) for candidate in candidates]  # all, before the first is trained
    for name, candidate, recipe in zip(names, candidates, recipes, strict=True):
        sparsity = recipe.pruning.options["sparsity"]
        watch.say(f"trial {name}: {sparsity:.1%} of the weights are to go, {epochs} epochs")
        result = run_recipe(recipe, out / TRIALS / name, cache, resume=True, watch=watch)
        made, score = int(result["bytes"]), float(result["scores"][SCORE])
        trials.append(Trial(name, str(candidate.run), candidate.bits, sparsity, made, score))
    best = tuple(sorted(trials, key=lambda trial: -trial.score))
    write_json(out / CHOICE, {"trials": [asdict(trial) for trial in best]})
    return best


def _recipe(candidate: Candidate, size: float, stages: Stages, epochs: int) -> Recipe:
    """Of a candidate's trial, whose file has a size of so many bytes."""
    told, model = replace(stages, bits=candidate.bits), candidate.run / MODEL
    dense, _ = read_run(candidate.run)
    sparsity = sparsity_for(sizes(load(model), candidate.bits, part_to_prune(dense)), size)
    return stage_recipe(dense, told, sparsity=sparsity, initial=model, teacher=model, epochs=epochs)


def _size(aim: Aim, first: Candidate, stages: Stages) -> float:
    if aim.budget:
        return aim.budget * (1 - ROOM)
    dense, _ = read_run(first.run)
    return predicted_bytes(load(first.run / MODEL), stages.first, first.bits, part_to_prune(dense))
