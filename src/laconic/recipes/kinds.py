"""The two kinds of recipes, and carrying out either: one trains a captioner, one slims a Transformer."""

from pathlib import Path
from typing import Any

from laconic.recipes.folders import AnyRecipe
from laconic.recipes.plan import check as check_captioner
from laconic.recipes.run import Watcher, run_recipe
from laconic.tasks.settings import SlimRecipe


def carry_out_recipe(
    recipe: AnyRecipe, folder: Path, cache: Path, *, resume: bool = False, watch: Watcher | None = None
) -> dict[str, Any]:
    """What `result.json` holds; arguments and errors as of run_recipe and run_slim."""
    if isinstance(recipe, SlimRecipe):
        from laconic.recipes.slimming import run_slim  # imports transformers

        return run_slim(recipe, folder, cache, resume=resume, watch=watch)
    return run_recipe(recipe, folder, cache, resume=resume, watch=watch)


def check_recipe(recipe: AnyRecipe, where: str) -> None:
    """ConfigError at `where` for what a recipe's values alone tell to be impossible.

    One that slims a Transformer has said so when it was read.
    """
    if not isinstance(recipe, SlimRecipe):
        check_captioner(recipe, where)
