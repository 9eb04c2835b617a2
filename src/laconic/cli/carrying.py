"""Carrying a recipe of either kind out where it is watched: in one process, or in several under torchrun."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from laconic.cli.console import console_for
from laconic.cli.progress import watching

if TYPE_CHECKING:
    from laconic.recipes.folders import AnyRecipe


def carried_out(
    recipe: "AnyRecipe", folder: Path, cache: Path, *, resume: bool, threads: int
) -> tuple[Console, dict[str, Any] | None]:
    """A console, and what `result.json` holds; None in a process of torchrun's that shows nothing."""
    from laconic.machine.distributed import is_writer, process_group
    from laconic.machine.process import settle_in
    from laconic.recipes.kinds import carry_out_recipe

    settle_in(threads)
    console = console_for()
    with process_group():
        if not is_writer():
            carry_out_recipe(recipe, folder, cache, resume=resume)
            return console, None
        with watching(console) as watch:
            return console, carry_out_recipe(recipe, folder, cache, resume=resume, watch=watch)
