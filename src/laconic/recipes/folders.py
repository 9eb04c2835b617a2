"""The folder of a run: which recipe it belongs to, whether it is finished, and who trains in it. Here is no torch."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from laconic.config import check_plain, differences, expand, from_mapping, to_mapping
from laconic.errors import ConfigError, TrainingError
from laconic.machine.files import write_text
from laconic.recipes.older import in_todays_form, is_old, without_defaults
from laconic.recipes.recipe import Recipe
from laconic.spec.captioners import form
from laconic.spec.manifest import LAST, LOCK, LOG, MODEL, RECIPE, RESULT
from laconic.tasks.settings import STAGES, SlimRecipe

MAX_BYTES = 1 << 20  # of a recipe

DAMAGED = (OSError, ValueError, TypeError, AttributeError, RecursionError, ConfigError)


AnyRecipe = Recipe | SlimRecipe


def recipe_type(table: Mapping[str, Any]) -> type[Recipe] | type[SlimRecipe]:
    """What a table of settings is: one with a task slims a Transformer, others train a captioner."""
    return SlimRecipe if "task" in table else Recipe


def read_recipe(folder: Path) -> AnyRecipe:
    """The recipe of the run in the folder, whichever version of laconic wrote it. Raises one of DAMAGED."""
    return _recipe_of(_table(folder))


def _recipe_of(table: dict[str, Any]) -> AnyRecipe:
    if recipe_type(table) is SlimRecipe:
        return from_mapping(table, SlimRecipe, RECIPE)
    return from_mapping(in_todays_form(table), Recipe, RECIPE)


def _table(folder: Path) -> dict[str, Any]:
    with (folder / RECIPE).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{RECIPE} has more than {MAX_BYTES:,} bytes")
    table = json.loads(data.decode("utf8"))
    check_plain(table, RECIPE)
    if not isinstance(table, dict):
        raise ValueError(f"{RECIPE} holds no table")
    return table


def finished(folder: Path, recipe: AnyRecipe, *, own: bool = False) -> dict[str, Any] | None:
    """The result where the recipe's run in the folder is finished. Writes nothing.

    `own` says that this process is the folder's `sole_writer`.

    Raises:
        TrainingError: where the folder is damaged, or holds a run with other settings.
    """
    if not (folder / RECIPE).exists():
        return None
    result = folder / RESULT
    try:
        held = _table(folder)
        changed = _changes(held, recipe)
        done = json.loads(result.read_text(encoding="utf8")) if result.exists() else None
        if done is not None:
            _check_result(done, recipe)
    except DAMAGED as error:
        raise TrainingError(f"{folder}: damaged run ({error}); delete it, or give --out another folder") from None
    if changed and (_begun(folder) or (not own and _busy(folder))):
        raise TrainingError(
            f"{folder}: holds a run with other settings ({'; '.join(changed[:3])}); "
            "delete it, or give --out another folder"
        )
    return done


@contextmanager
def claim(folder: Path, recipe: AnyRecipe, resume: bool) -> Iterator[dict[str, Any] | None]:
    """Within the block the folder is this recipe's and this process's; gives the result where the run is finished.

    A run that was stopped before it had trained anything, by a mistake in its recipe for one, holds no folder.

    Raises:
        TrainingError: as `finished` and `sole_writer`, and where the folder holds an interrupted run and `resume` is
            off.
    """
    done = finished(folder, recipe)
    if done is not None:
        yield done
        return
    make_folder(folder)
    with sole_writer(folder):
        done = finished(folder, recipe, own=True)  # once more: nobody else changes it now
        if done is None:
            if not _begun(folder):
                write_json(folder / RECIPE, to_mapping(recipe))
            elif not resume:
                raise TrainingError(
                    f"{folder}: holds an unfinished run; continue it with --resume or give --out another folder"
                )
        yield done


def make_folder(folder: Path) -> None:
    """Makes the folder where there is none; called before the work whose results go there.

    Raises TrainingError where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); give --out another folder") from None


def check_ticket(ticket: Path, recipe: Recipe) -> None:
    """A ticket is rewound to its own beginning: data, model and seed must be those of the run it is from.

    Raises:
        ConfigError: where they are not, or that run is not finished.
    """
    for name in (RECIPE, RESULT, MODEL):
        if not (ticket / name).is_file():
            raise ConfigError(f"{ticket}: no finished run (it has no {name}); train the ticket's run first")
    try:
        theirs, ours = _rewound(to_mapping(read_recipe(ticket))), _rewound(to_mapping(recipe))
    except DAMAGED as error:
        raise ConfigError(f"{ticket}: damaged run ({error}); train the ticket's run again") from None
    changed = differences(theirs, ours)
    if changed:
        raise ConfigError(f"{ticket}: {'; '.join(changed[:3])}; a ticket fits its own model only")


def _rewound(recipe: dict[str, Any]) -> dict[str, Any]:
    """What decides the beginning of a run; dropouts change no weight."""
    return {
        **{key: recipe[key] for key in ("data", "encoder", "imagenet", "initial", "inherit", "encoder_from")},
        "decoder": form(**recipe["decoder"]),
        "training": {"seed": recipe["training"]["seed"]},
    }


def _changes(held: dict[str, Any], recipe: AnyRecipe) -> list[str]:
    """What the recipe has otherwise than the one that is held; a default that it spells out is none."""
    asked = to_mapping(recipe)
    if isinstance(recipe, Recipe) and is_old(held):  # and so holds no defaults
        asked["pruning"]["options"] = without_defaults(asked["pruning"]["options"])
    return differences(to_mapping(_recipe_of(held)), asked, same=_alike)


def _alike(one: Any, other: Any) -> bool:
    """Whether two settings are one: a file may be named from the working folder or from the root."""
    if one == other or not all(isinstance(value, str) and os.sep in value for value in (one, other)):
        return bool(one == other)
    return expand(one).absolute() == expand(other).absolute()


def _check_result(result: Any, recipe: AnyRecipe) -> None:
    """ValueError where a `result.json` lacks what is said of every finished run."""
    try:
        if isinstance(recipe, SlimRecipe):
            float(result["scores"][result["selection"]]), int(result["parameters"]["now"])
            return
        scores, counts, seconds = result["scores"], result["non_zeros"], result["seconds"]
        [float(scores[name]) for name in ("CIDEr", "Bleu_4", "ROUGE_L")]
        [int(counts[name]) for part in ("encoder", "decoder") for name in (part, f"{part}_weights")]
        int(result["bytes"]), [float(value) for value in seconds.values()], list(result["skipped"])
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{RESULT} is not that of a run: {type(error).__name__}: {error}") from None


def _begun(folder: Path) -> bool:
    """Whether something has been trained in the folder."""
    if (folder / RESULT).exists():
        return True
    return any((folder / stage / name).exists() for stage in (".", *STAGES) for name in (LOG, LAST))


def _busy(folder: Path) -> bool:
    """Whether another process is about to train in the folder."""
    try:
        with sole_writer(folder):
            return False
    except TrainingError:
        return True


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """No other process trains in the folder meanwhile; TrainingError where one does already."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise TrainingError(f"{folder}: another process trains in it; wait for it, or give --out another") from None
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); give --out another folder") from None
    try:
        yield
        (folder / LOCK).unlink(missing_ok=True)
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; TrainingError where that fails."""
    try:
        write_text(path, json.dumps(value, indent=1) + "\n")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error}); free the disk or give --out another") from error
