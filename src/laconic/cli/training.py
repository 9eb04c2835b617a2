"""The verbs that train: `demo` and `train`. Knows how a recipe meets the command line, not what it does."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.cli.console import console_for, list_skipped, run_table
from laconic.cli.paths import RunFolder
from laconic.cli.progress import watching
from laconic.config import read_toml
from laconic.errors import ConfigError
from laconic.spec.manifest import MODEL

if TYPE_CHECKING:
    from laconic.recipes.recipe import DataRecipe, Recipe


def run_demo(options: Any) -> None:
    """Runs the built-in story."""
    from laconic.cli import demo

    demo.run_demo(options)


def demo_options() -> type:
    from laconic.cli.demo import Demo

    return Demo


def _recipe_type() -> type:
    from laconic.recipes.recipe import Recipe

    return Recipe


@dataclass(frozen=True)
class Train:
    """Trains a captioner as a recipe says, from photos to scores. Every key of the recipe is an option."""

    recipe: Annotated[Path, Positional, arg(metavar="RECIPE.toml")]
    """What to train, on what and how."""
    settings: Annotated[Any, arg(name="", constructor_factory=_recipe_type)] = None
    """The recipe's values, which options override."""
    out: RunFolder = None
    """Folder of the run; runs/<name of the recipe> by default."""
    cache: Annotated[Path, arg(metavar="DIR")] = Path("cache")
    """Folder of cached image features, shared by all runs."""
    resume: FlagCreatePairsOff[bool] = False
    """Go on with an interrupted run."""
    threads: int = 0
    """Processor threads; 0 for all."""


def train(options: Train) -> None:
    """Carries out a recipe and shows what came of it; under torchrun, one process of several shows it."""
    from laconic.machine.distributed import is_writer, process_group
    from laconic.machine.process import settle_in
    from laconic.recipes.recipe import Recipe, run

    if options.threads < 0:
        raise ConfigError(f"--threads {options.threads}: give 0 for all, or at least 1")
    if options.recipe.suffix != ".toml":
        raise ConfigError(f"{options.recipe}: give the path of a recipe (.toml)")
    settle_in(options.threads)
    recipe = _without_defaults(options.settings, read_toml(options.recipe, Recipe))
    folder = options.out or Path("runs") / options.recipe.stem
    with process_group():
        if not is_writer():
            run(recipe, folder, options.cache, resume=options.resume)
            return
        console = console_for()
        with watching(console) as watch:
            result = run(recipe, folder, options.cache, resume=options.resume, watch=watch)
    console.print(run_table(result))
    list_skipped(console, result["skipped"])
    if not (folder / MODEL).is_file():
        lines = [f"{folder / MODEL} is gone; to have it again delete the folder and train once more"]
    else:
        lines = _next_commands(folder, recipe.data)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def train_defaults(words: list[str]) -> Train:
    """What options override: the values of the recipe among the words; those of any recipe where there is none.

    Where they name another captioner, its own defaults take the place of the recipe's [decoder].
    """
    from laconic.recipes.recipe import Recipe

    named = _recipe_file(words)
    recipe = Recipe() if named is None else read_toml(named, Recipe)
    captioner = _value(words, "--decoder.name")
    if captioner not in (None, recipe.decoder.name):
        recipe = replace(recipe, decoder=type(recipe.decoder)(captioner))
    return Train(recipe=tyro.MISSING, settings=_with_defaults(recipe))


def _recipe_file(words: Sequence[str]) -> Path | None:
    """The first file name of a recipe that is no option and not the value of one that takes paths."""
    before = ("", *words)
    return next(
        (
            Path(word)
            for option, word in zip(before, words, strict=False)
            if word.endswith(".toml") and not word.startswith("-") and option not in ("-o", "--out", "--cache")
        ),
        None,
    )


def _value(words: Sequence[str], option: str) -> str | None:
    """What the words give an option, the last time that they do."""
    found = None
    for word, following in zip_longest(words, words[1:]):
        name, joined, value = word.partition("=")
        if name == option:
            found = value if joined else following
    return found


def _with_defaults(recipe: "Recipe") -> "Recipe":
    """All options of the recipe's decoder spelled out, so that each becomes one of the command line."""
    from laconic.spec.captioners import default_options

    decoder = recipe.decoder
    return replace(recipe, decoder=replace(decoder, options={**default_options(decoder.name), **decoder.options}))


def _without_defaults(recipe: "Recipe", file: "Recipe") -> "Recipe":
    """The inverse: only what the file wrote or an option changed, since a run is known by what it sets."""
    from laconic.spec.captioners import default_options

    defaults = default_options(recipe.decoder.name)
    written = file.decoder.options if file.decoder.name == recipe.decoder.name else {}
    options = {
        key: value
        for key, value in recipe.decoder.options.items()
        if key in written or key not in defaults or value != defaults[key]
    }
    return replace(recipe, decoder=replace(recipe.decoder, options=options))


def _next_commands(folder: Path, data: "DataRecipe") -> list[str]:
    packed = f"{folder.name}.safetensors"
    places = [*(["--root", data.root] if data.root else []), *(["--regions", data.regions] if data.regions else [])]
    return [
        "Next:",
        "  " + shlex.join(["laconic", "pack", str(folder), "-o", packed]),
        # A root such as $LACONIC_SHARED/... is left unquoted: laconic expands it, as the shell would.
        "  " + " ".join(["laconic evaluate", shlex.quote(packed), "--data", data.name, *places, "--split val"]),
        "  " + shlex.join(["laconic", "caption", packed, "features.npy" if data.regions else "photo.jpg"]),
    ]
