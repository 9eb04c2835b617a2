"""The verbs that train: `demo` and `train`. Knows how a recipe meets the command line, not what it does."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.cli.carrying import carried_out
from laconic.cli.console import list_skipped, run_table
from laconic.cli.paths import RunFolder
from laconic.config import from_mapping, read_table, read_toml
from laconic.errors import ConfigError
from laconic.spec.manifest import MODEL
from laconic.tasks.settings import SlimRecipe

if TYPE_CHECKING:
    from laconic.cli.slim import TrainSlim
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
    """A recipe: the data, the captioner, and how it is trained and pruned."""
    settings: Annotated[Any, arg(name="", constructor_factory=_recipe_type)] = None
    """The recipe's values, which options override."""
    out: RunFolder = None
    """Folder of the run; runs/<name of the recipe> by default."""
    cache: Annotated[Path, arg(metavar="DIR")] = Path("cache")
    """Folder of cached images and image features, which all runs share."""
    resume: FlagCreatePairsOff[bool] = False
    """Go on with a run that was stopped."""
    threads: int = 0
    """Processor threads; 0 for all."""


def train(options: "Train | TrainSlim") -> None:
    """Carries out a recipe and shows what came of it; under torchrun, one process of several shows it."""
    if not isinstance(options, Train):
        from laconic.cli.slim import train_slim

        train_slim(options)
        return
    from laconic.recipes.recipe import Recipe

    if options.recipe.suffix != ".toml":
        raise ConfigError(f"{options.recipe}: give the path of a recipe (.toml)")
    recipe = _without_defaults(options.settings, read_toml(options.recipe, Recipe))
    folder = options.out or Path("runs") / options.recipe.stem
    console, result = carried_out(recipe, folder, options.cache, resume=options.resume, threads=options.threads)
    if result is None:
        return
    console.print(run_table(result))
    list_skipped(console, result["skipped"])
    if not (folder / MODEL).is_file():
        lines = [f"{folder / MODEL} is gone; to have it again delete the folder and train once more"]
    else:
        lines = _next_commands(folder, recipe.data)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def train_defaults(words: list[str]) -> "Train | TrainSlim":
    """What options override: the values of the recipe among the words; those of any recipe where there is none.

    Where they name another captioner, its own defaults take the place of the recipe's [decoder]; another pruning method
    takes over the recipe's options, "none" has none.
    """
    from laconic.recipes.methods import METHODS, NONE
    from laconic.recipes.recipe import Recipe

    _refuse_moved(words)
    named = _recipe_file(words)
    if named is not None and "task" in read_table(named):
        from laconic.cli.slim import TrainSlim

        return TrainSlim(recipe=tyro.MISSING, settings=read_toml(named, SlimRecipe))
    recipe = Recipe() if named is None else read_toml(named, Recipe)
    captioner = _value(words, "--decoder.name")
    if captioner not in (None, recipe.decoder.name):
        recipe = replace(recipe, decoder=type(recipe.decoder)(captioner))
    method = _value(words, "--pruning.method")
    if method in METHODS:
        recipe = replace(recipe, pruning=replace(recipe.pruning, method=method))
    elif method == NONE:
        recipe = replace(recipe, pruning=replace(recipe.pruning, method=method, options={}))
    return Train(recipe=tyro.MISSING, settings=_with_options(recipe))


def _refuse_moved(words: Sequence[str]) -> None:
    """ConfigError for an option that has another name since each method has options of its own."""
    from laconic.recipes.recipe import Pruning

    for word in words:
        key = word.partition("=")[0].removeprefix("--pruning.").replace("-", "_")
        if word.startswith("--pruning.") and key in Pruning.MOVED:
            raise ConfigError(f"--pruning.{key} is now --pruning.{Pruning.MOVED[key]}")


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


# Options of a captioner and of a method are dictionaries in a recipe, so that a run is known by what it sets. On the
# command line each is an option of its own, with the type, the help and the default of the dataclass that takes it. And
# a name that stands for the row of a table is a choice of these, which --help lists.


def _with_options(recipe: "Recipe") -> "Recipe":
    """The recipe with typed options in the place of the dictionaries, those that it sets with its values."""
    from laconic.data import DATASETS
    from laconic.recipes.methods import METHODS, NONE, method_class
    from laconic.spec.captioners import CAPTIONERS, SIZES
    from laconic.spec.encoders import ENCODERS
    from laconic.spec.model import REGIONS

    decoder, pruning = recipe.decoder, recipe.pruning
    if decoder.name in CAPTIONERS:
        form = _form(CAPTIONERS[decoder.name], decoder.options, f"captioner {decoder.name}", SIZES)
        recipe = replace(recipe, decoder=_typed(decoder, {"name": CAPTIONERS}, form))
    kind = Nothing if pruning.method == NONE else method_class(pruning.method)
    form = _form(kind, pruning.options, f'pruning.options of "{pruning.method}"')
    return replace(
        recipe,
        data=_typed(recipe.data, {"name": DATASETS}),
        encoder=_typed(recipe.encoder, {"name": (*ENCODERS, REGIONS)}),
        pruning=_typed(pruning, {"method": (NONE, *METHODS)}, form),
    )


@dataclass(frozen=True)
class Nothing:
    """No options."""


def _form(kind: type, given: Mapping[str, Any], where: str, leave_out: Sequence[str] = ()) -> Any:
    """A dataclass with the fields and defaults of `kind` that judges no value: what is `given`, else the defaults.

    An option that has neither must be given on the command line.
    """
    hints = get_type_hints(kind)
    known = [one for one in fields(kind) if one.name not in leave_out]
    copies = [(one.name, hints[one.name], _copied(one)) for one in known]
    made = make_dataclass(kind.__name__, copies, frozen=True)
    made.__doc__ = kind.__doc__
    missing = [one.name for one in known if one.default is MISSING and one.default_factory is MISSING]
    asked = {name: tyro.MISSING for name in missing if name not in given}
    typed = make_dataclass(kind.__name__, [(name, type_, field(default=None)) for name, type_, _ in copies])
    read: Any = from_mapping(given, typed, where)
    return made(**asked, **{name: getattr(read, name) for name in given})


def _copied(one: "Field[Any]") -> Any:
    if one.default_factory is not MISSING:
        return field(default_factory=one.default_factory)
    return field() if one.default is MISSING else field(default=one.default)


def _typed(table: Any, choices: Mapping[str, Iterable[str]], form: Any = None) -> Any:
    """A table of the recipe with choices as its names, and with the form, if any, as its options."""
    kind = type(table)
    unjudged = {"__post_init__": lambda _: None}
    typed: list[Any] = [
        (key, Literal[tuple(rows)], field(default=getattr(table, key)))
        for key, rows in choices.items()
        if getattr(table, key) in rows  # what is none of them is judged later
    ]
    if form is not None:
        typed.append(("options", type(form), field(default=form)))
    made = make_dataclass(kind.__name__, typed, bases=(kind,), frozen=True, namespace=unjudged)
    made.__doc__ = kind.__doc__
    values = {one.name: getattr(table, one.name) for one in fields(kind)}
    return made(**values | ({} if form is None else {"options": form}))


def _without_defaults(recipe: "Recipe", file: "Recipe") -> "Recipe":
    """The inverse of `_with_options`: of options only what the file wrote or the command line changed."""
    written = file.decoder.options if file.decoder.name == recipe.decoder.name else {}
    return replace(
        recipe,
        data=_untyped(recipe.data, type(file.data)),
        encoder=_untyped(recipe.encoder, type(file.encoder)),
        decoder=_untyped(recipe.decoder, type(file.decoder), written),
        pruning=_untyped(recipe.pruning, type(file.pruning), file.pruning.options),
    )


def _untyped(table: Any, kind: type, written: Mapping[str, Any] | None = None) -> Any:
    values = {one.name: getattr(table, one.name) for one in fields(kind)}
    if is_dataclass(values.get("options")):
        values["options"] = _set(table.options, written or {})
    return kind(**values)


def _set(form: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """What of the form's values is written in the file, or is not the default."""
    found = {}
    for one in fields(form):
        value = getattr(form, one.name)
        default = one.default if one.default_factory is MISSING else one.default_factory()
        if one.name in written or value != default:
            inner = written.get(one.name, {})
            found[one.name] = _set(value, inner) if is_dataclass(value) else value
    return found


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
