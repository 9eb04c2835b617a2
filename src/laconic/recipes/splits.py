"""The examples that a recipe learns from and is scored on. Here is no torch."""

from laconic import data
from laconic.config import expand
from laconic.data import Dataset, Photos
from laconic.recipes.recipe import DataRecipe


def splits(recipe: DataRecipe) -> tuple[Dataset, Dataset]:
    """Training and validation examples; photos that are missing are found so when they are read.

    ConfigError, DataError where the data set cannot be read as it is asked for.
    """
    root = expand(recipe.root) if recipe.root else None
    photos: Photos = "none" if recipe.regions else "some"
    # a data set without tokens refuses to be asked for them
    asked = {} if recipe.tokens == "auto" else {"tokens": recipe.tokens}
    train, val = (data.load(recipe.name, root, split, photos=photos, **asked) for split in ("train", "val"))
    return _first(train, recipe.train), _first(val, recipe.val)


def _first(examples: Dataset, count: int) -> Dataset:
    return [examples[i] for i in range(min(count, len(examples)))] if count else examples
