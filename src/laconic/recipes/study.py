"""A study: many recipes that differ in a few settings, from one TOML file, in the order they need each other.

    base = "../flickr8k_dense.toml"          # a recipe file beside the study, or a table [base]

    [[run]]                                  # one run: its name, and what it changes
    name = "dense"

    [[grid]]                                 # one run for each combination
    name = "{method}_{sparsity}"
    vary.pruning.options.sparsity = [0.8, 0.95]      # values of one key; the axis bears its last name
    [grid.choices.method]                    # or settings under a label, several keys at once
    smp = { pruning.method = "supermask" }
    blind = { pruning.method = "magnitude", initial = "{runs}/dense" }

`{axis}` in a text is the label of the combination, `{runs}` the folder of the study's runs. A run whose settings
name `{runs}/other` starts once `other` is finished; as `initial` or `distillation.teacher` it means that run's model.

Reads and checks; what carries a study out is laconic.recipes.processes.
"""

import fnmatch
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from laconic.config import from_mapping, read_table
from laconic.errors import ConfigError
from laconic.recipes.folders import AnyRecipe, recipe_type
from laconic.recipes.recipe import Recipe
from laconic.spec.captioners import form
from laconic.spec.manifest import MODEL, NET

MOST_RUNS = 1000
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_PLACE = re.compile(r"(?<!\$)\{(\w+)\}")  # ${...} is an environment variable

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        name: of the run and its folder.
        recipe: what it does.
        needs: names of the runs that must be finished before.
    """

    name: str
    recipe: AnyRecipe
    needs: tuple[str, ...] = ()


def read_study(path: Path, folder: Path) -> tuple[StudyRun, ...]:
    """All runs of a study file, those that others need first, else in the order of the file.

    Every recipe is checked for what its values alone tell, so that what can be known to fail does so before the first
    run starts; of those that are to be carried out, see `recipes.plan.check` and `recipes.study_files`, too.

    Args:
        path: the study file.
        folder: of the runs; `{runs}` in the file.

    Raises:
        ConfigError: naming file, run and key.
    """
    study = read_table(path, "a study")
    for key in study.keys() - {"base", "run", "grid"}:
        raise ConfigError(f"{path}: unknown key {key!r}; a study has base, run and grid")
    base = _read_base(study.get("base", {}), path)
    every = itertools.chain(_single_runs(study, path), itertools.chain.from_iterable(_grids(study, path)))
    drafts = list(itertools.islice(every, MOST_RUNS + 1))
    if not drafts:
        raise ConfigError(f"{path}: no runs; add [[run]] or [[grid]]")
    if len(drafts) > MOST_RUNS:
        raise ConfigError(f"{path}: over {MOST_RUNS:,} runs; split the study")
    names = [draft.name for draft in drafts]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{path}: run name {name!r}; use letters, digits and . _ + -")
        if names.count(name) > 1:
            raise ConfigError(f"{path}: two runs are named {name!r}; name each grid by its axes")
    runs = [_complete(draft, base, folder, frozenset(names), path) for draft in drafts]
    _check_initials(runs, folder, path)
    return in_order(runs, path)


def _check_initials(runs: Sequence[StudyRun], folder: Path, path: Path) -> None:
    """ConfigError where a run begins with the model of another one that is another function."""
    captioners = {str(folder / run.name / MODEL): run.recipe for run in runs if isinstance(run.recipe, Recipe)}
    for run in runs:
        if not isinstance(run.recipe, Recipe) or run.recipe.initial not in captioners:
            continue
        before = captioners[run.recipe.initial]
        if _function(before) != _function(run.recipe):
            raise ConfigError(
                f"{path}: run {run.name!r} begins with {Path(run.recipe.initial).parent.name!r}, which has another "
                "encoder or captioner; give both the same, but for dropout"
            )


def _function(recipe: Recipe) -> tuple[object, object]:
    """What the packed captioner of a run computes, weights apart: its batch norms are folded."""
    return replace(recipe.encoder, norm=False), form(recipe.decoder.name, recipe.decoder.options)


def in_order(runs: Sequence[StudyRun], path: Path) -> tuple[StudyRun, ...]:
    """The runs with those first that others need; ConfigError where runs need each other in a circle."""
    by_name = {run.name: run for run in runs}
    try:
        order = list(TopologicalSorter({run.name: run.needs for run in runs}).static_order())
    except CycleError as error:
        raise ConfigError(f"{path}: runs need each other in a circle: {' -> '.join(error.args[1])}") from None
    place = {name: i for i, name in enumerate(by_name)}
    depth: dict[str, int] = {}
    for name in order:  # as early as possible, and in the order of the file where nothing else decides
        depth[name] = max([place[name], *(depth[need] for need in by_name[name].needs)])
    return tuple(by_name[name] for name in sorted(order, key=lambda n: (depth[n], order.index(n))))


def only(
    runs: Sequence[StudyRun], patterns: Sequence[str], finished: Callable[[StudyRun], bool] = lambda _: False
) -> tuple[StudyRun, ...]:
    """The runs whose names match one of the shell patterns, and all that those need, in the order given.

    One that is finished already needs nothing any longer, so its predecessors may be gone.

    Raises ConfigError for a pattern that matches no run.
    """
    names = [run.name for run in runs]
    wanted: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise ConfigError(f"no run matches {pattern!r}; there are {', '.join(names)}")
        wanted.update(found)
    for run in reversed(runs):  # those that others need come before them
        if run.name in wanted and not finished(run):
            wanted.update(run.needs)
    return tuple(run for run in runs if run.name in wanted)


# Reading


@dataclass(frozen=True)
class _Draft:
    """A run as the file has it: name, settings, and the labels of its place in a grid."""

    name: str
    settings: Settings
    labels: Mapping[str, str]


def _read_base(base: Any, path: Path) -> Settings:
    if isinstance(base, Mapping):
        return base
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base = {base!r}; give the path of a recipe, or a table [base]")
    file = path.parent / base
    settings = read_table(file)
    from_mapping(settings, recipe_type(settings), str(file))  # so that a mistake in it is said of it, and once
    return settings


def _single_runs(study: Settings, path: Path) -> Iterator[_Draft]:
    for number, table in enumerate(_tables(study, "run", path), 1):
        settings = dict(table)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"{path}: run {number} has no name; add name = ...")
        yield _Draft(name, settings, {})


def _grids(study: Settings, path: Path) -> Iterator[Iterator[_Draft]]:
    for number, table in enumerate(_tables(study, "grid", path), 1):
        where = f"{path}: grid {number}"
        for key in table.keys() - {"name", "vary", "choices"}:
            raise ConfigError(f"{where}: unknown key {key!r}; a grid has name, vary and choices")
        axes = _axes(table, where)
        template = table.get("name", "_".join(f"{{{axis}}}" for axis in axes))
        if not isinstance(template, str):
            raise ConfigError(f"{where}: name = {template!r}; give a text such as '{{method}}_{{sparsity}}'")
        yield _combinations(axes, template, where)


def _combinations(axes: Mapping[str, Mapping[str, Settings]], template: str, where: str) -> Iterator[_Draft]:
    for chosen in itertools.product(*(axis.items() for axis in axes.values())):
        labels = dict(zip(axes, (label for label, _ in chosen), strict=True))
        settings: Settings = {}
        for _, some in chosen:
            settings = merge(settings, some)
        yield _Draft(_fill(template, labels, f"{where}: name"), settings, labels)


def _axes(table: Settings, where: str) -> dict[str, dict[str, Settings]]:
    """Axis -> label -> settings, named choices first."""
    axes: dict[str, dict[str, Settings]] = {}
    choices = table.get("choices", {})
    if not isinstance(choices, Mapping):
        raise ConfigError(f"{where}: choices = {choices!r}; expected tables [grid.choices.NAME]")
    for axis, options in choices.items():
        if not isinstance(options, Mapping) or not all(isinstance(o, Mapping) for o in options.values()):
            raise ConfigError(f"{where}: choices.{axis} = {options!r}; expected label = {{ settings }}")
        axes[axis] = dict(options)
    for keys, values in _leaves(table.get("vary", {}), f"{where}: vary"):
        axis = keys[-1]
        if axis in axes:
            raise ConfigError(f"{where}: two axes are named {axis!r}; name the choices otherwise")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: vary.{'.'.join(keys)} = {values!r}; expected a list of values")
        axes[axis] = {_label(value): _nested(keys, value) for value in values}
        if len(axes[axis]) < len(values):
            raise ConfigError(f"{where}: vary.{'.'.join(keys)} = {values!r}: two values have one label; name choices")
    empty = [axis for axis, options in axes.items() if not options]
    if empty or not axes:
        raise ConfigError(f"{where}: {f'axis {empty[0]!r} has no choice' if empty else 'no axis; add vary or choices'}")
    return axes


def _tables(study: Settings, key: str, path: Path) -> list[Settings]:
    tables = study.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{path}: {key} must be tables; write [[{key}]]")
    return tables


def _leaves(table: Any, where: str, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} = {table!r}; expected KEY = [values]")
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, where, (*keys, key))
        else:
            yield (*keys, key), value


def _nested(keys: Sequence[str], value: Any) -> Settings:
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)  # TOML has dates, too


# Completing


def merge(settings: Settings, changes: Settings) -> dict[str, Any]:
    """`settings` with `changes` on top, table by table.

    Options belong to their method or captioner: changes that name another one begin with its defaults.
    """
    merged = dict(settings)
    for owner in ("method", "name"):
        if owner in changes and merged.get(owner, changes[owner]) != changes[owner]:
            merged.pop("options", None)
    for key, value in changes.items():
        held = merged.get(key)
        both = isinstance(held, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(held, value) if both else value  # type: ignore[arg-type]
    return merged


def _complete(draft: _Draft, base: Settings, folder: Path, names: frozenset[str], path: Path) -> StudyRun:
    where = f"{path}: run {draft.name!r}"
    needs: dict[str, None] = {}  # a set that keeps its order

    def fill(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: fill(some) for key, some in value.items()}
        if isinstance(value, list):
            return [fill(some) for some in value]
        if not isinstance(value, str) or not _PLACE.search(value):
            return value
        text = _fill(value, {**draft.labels, "runs": "{runs}"}, where).rstrip("/")
        if "{runs}" in text.removeprefix("{runs}/"):
            raise ConfigError(f"{where}: {value!r}; {{runs}} stands at the beginning, as in {{runs}}/NAME")
        if text.startswith("{runs}/"):
            name = text.removeprefix("{runs}/").split("/")[0]
            if name not in names:
                raise ConfigError(f"{where}: {value!r} names no run of the study; runs: {', '.join(sorted(names))}")
            needs[name] = None
        return text.replace("{runs}", str(folder))

    settings = fill(merge(base, draft.settings))
    runs = [str(folder / name) for name in needs]
    taught = settings.get("distillation", {})
    for table, keys in ((settings, ("initial", "inherit", "encoder_from")), (taught, ("teacher",))):
        for key in keys:
            if isinstance(table, dict) and table.get(key) in runs:
                table[key] = str(Path(table[key]) / MODEL)
    if isinstance(taught, dict) and isinstance(taught.get("ensemble"), list):
        taught["ensemble"] = [str(Path(one) / MODEL) if one in runs else one for one in taught["ensemble"]]
    model = settings.get("model", {})
    if isinstance(model, dict) and model.get("initial") in runs:
        model["initial"] = str(Path(model["initial"]) / NET)
    try:
        recipe = from_mapping(settings, recipe_type(settings), where)
    except ConfigError as error:  # what the recipe itself says does not know where
        raise ConfigError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
    return StudyRun(draft.name, recipe, tuple(needs))


def _fill(text: str, labels: Mapping[str, str], where: str) -> str:
    def label(match: re.Match[str]) -> str:
        if match[1] not in labels:
            known = ", ".join(f"{{{name}}}" for name in labels) or "none here"
            raise ConfigError(f"{where}: {match[0]} in {text!r} is unknown; there are {known}")
        return labels[match[1]]

    return _PLACE.sub(label, text)
