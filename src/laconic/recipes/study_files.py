"""What the runs of a study start from: files that must be there, and data that can be read. Here is no torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from laconic.config import SHARED, expand
from laconic.errors import ConfigError, DataError
from laconic.recipes.folders import AnyRecipe, finished
from laconic.recipes.recipe import DataRecipe
from laconic.recipes.splits import splits
from laconic.recipes.study import StudyRun
from laconic.tasks.settings import SlimRecipe


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
                remedy = f"set {SHARED} to the folder that holds your data, or correct the path"
                raise ConfigError(f"run {run.name!r}: {key} = {text!r}; there is no {path}: {remedy}")
        _check_data(run, seen)


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
