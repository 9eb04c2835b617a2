"""What the runs of a study start from: files that must be there, and data that can be read. Here is no torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from laconic import store
from laconic.config import SHARED, expand
from laconic.errors import ConfigError, DataError, FormatError
from laconic.recipes.beginning import check_encoder, check_initial
from laconic.recipes.folders import AnyRecipe, finished
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.recipes.splits import splits
from laconic.recipes.study import StudyRun
from laconic.spec.packed import read_spec
from laconic.tasks.settings import SlimRecipe

PACKED = ("initial", "inherit", "encoder_from", "distillation.teacher", "distillation.ensemble")  # keys of such files


def check_files(runs: Sequence[StudyRun], folder: Path) -> None:
    """Looks at every run's folder, at the files that it starts from and at its data; runs that are finished need none.

    Raises:
        ConfigError: where a file is missing and no run of the study makes it, or data cannot be read.
        TrainingError: where a run's folder is damaged or holds a run with other settings.
    """
    seen: set[DataRecipe] = set()
    for run in runs:
        if finished(folder / run.name, run.recipe) is not None:
            continue
        made = [folder / need for need in run.needs]
        for key, text in _files(run.recipe).items():
            path = expand(text)
            if text and not path.exists() and not any(path.is_relative_to(place) for place in made):
                set_it = f"set {SHARED} to the folder that holds your data, or " if SHARED in text else ""
                remedy = f"{set_it}correct the path"
                raise ConfigError(f"run {run.name!r}: {key} = {text!r}; there is no {path}: {remedy}")
            if text and path.is_file() and isinstance(run.recipe, Recipe):
                _check_packed(run.name, run.recipe, key, path)
        _check_data(run, seen)


def _check_packed(name: str, recipe: Recipe, key: str, path: Path) -> None:
    """ConfigError where a file's index is damaged, or its captioner is none that the recipe begins with."""
    kind = key.partition("[")[0]
    if kind not in PACKED:
        return
    try:
        spec = read_spec(store.load(path))
        if kind == "initial":
            check_initial(spec, recipe, str(path))
        elif kind == "encoder_from":
            check_encoder(spec, recipe, str(path))
    except (ConfigError, FormatError) as error:
        raise ConfigError(f"run {name!r}: {key}: {error}") from None


def _files(recipe: AnyRecipe) -> dict[str, str]:
    """What a recipe starts from, by key; empty where it needs none."""
    if isinstance(recipe, SlimRecipe):
        return {
            "model.initial": recipe.model.initial,
            "model.imagenet": recipe.model.imagenet,
            "data.root": recipe.data.root,
        }
    return {
        "initial": recipe.initial,
        "inherit": recipe.inherit,
        "encoder_from": recipe.encoder_from,
        "imagenet": recipe.imagenet,
        "pruning.options.ticket": str(recipe.pruning.options.get("ticket", "")),
        "distillation.teacher": recipe.distillation.teacher,
        **{f"distillation.ensemble[{at}]": file for at, file in enumerate(recipe.distillation.ensemble)},
        "data.regions": recipe.data.regions,
    }


def _check_data(run: StudyRun, seen: set[DataRecipe]) -> None:
    """ConfigError where a run's annotations cannot be read or its photos are gone; each data set is looked at once."""
    if isinstance(run.recipe, SlimRecipe):
        return  # its task looks at them
    asked = replace(run.recipe.data, train=0, val=0)
    if asked in seen:
        return
    seen.add(asked)
    try:
        splits(asked)
    except (ConfigError, DataError) as error:
        raise ConfigError(f"run {run.name!r}: data: {error}") from None
