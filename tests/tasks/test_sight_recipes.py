"""The studies of classification and segmentation compare rows of equal training."""

from pathlib import Path

import pytest

from laconic.recipes.study import read_study
from laconic.tasks.settings import SlimRecipe

STUDIES = Path(__file__).parents[2] / "recipes" / "studies"


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_every_row_after_the_dense_one_starts_there_and_trains_for_as_long(task: str, tmp_path: Path) -> None:
    epochs, methods = set(), set()
    for run in read_study(STUDIES / f"upop_{task}.toml", tmp_path):
        recipe = run.recipe
        assert isinstance(recipe, SlimRecipe)
        assert recipe.dense.epochs == 0
        if run.name.startswith("dense0"):
            assert recipe.slim.method == "none"
            assert not run.needs
            continue
        assert run.needs
        assert run.needs[0].startswith("dense0")
        searched = 0 if recipe.slim.method == "none" else recipe.search.epochs
        epochs.add(searched + recipe.training.epochs)
        methods.add(recipe.slim.method)
    assert len(epochs) == 1
    assert methods == {"none", "upop", "mask", "magnitude"}
