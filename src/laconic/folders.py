"""The folder of a run: which recipe it belongs to, whether it is finished, and who trains in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from laconic.config import differences, from_mapping, to_mapping
from laconic.errors import ConfigError, TrainingError
from laconic.files import write_text
from laconic.pruning import Pruning, check_ticket

RECIPE, RESULT = "recipe.json", "result.json"
MODEL = "model.safetensors"  # of a finished run
LOCK = "lock"  # held by the process that trains in a folder


class Planned(Protocol):
    """What counts of a recipe here: a dataclass with a [pruning] table."""

    @property
    def pruning(self) -> Pruning: ...


def finished(folder: Path, recipe: Planned) -> dict[str, Any] | None:
    """The result where the recipe's run in the folder is finished. Writes nothing.

    Raises:
        TrainingError: where the folder is damaged, or holds a run with other settings.
    """
    recipe_file, result = folder / RECIPE, folder / RESULT
    if not recipe_file.exists():
        return None
    try:
        held = from_mapping(json.loads(recipe_file.read_text(encoding="utf8")), type(recipe), str(recipe_file))
        done = json.loads(result.read_text(encoding="utf8")) if result.exists() else None
        if not isinstance(done, dict | None):
            raise ValueError("not a JSON object")
    except (ValueError, ConfigError) as error:
        raise TrainingError(f"{folder}: damaged run ({error}); give --out another folder") from None
    changed = differences(to_mapping(held), to_mapping(recipe))
    if changed and _begun(folder):
        raise TrainingError(
            f"{folder}: holds a run with other settings ({'; '.join(changed[:3])}); give --out another folder"
        )
    return done


def claim(folder: Path, recipe: Planned, resume: bool) -> dict[str, Any] | None:
    """Takes the folder for this recipe; gives the result where the run is already finished.

    A run that was stopped before it had trained anything, by a mistake in its recipe for one, holds no folder.

    Raises:
        TrainingError: as `finished`, and where the folder holds an interrupted run and `resume` is off.
    """
    done = finished(folder, recipe)
    if done is not None:
        return done
    if (folder / RECIPE).exists() and _begun(folder):
        if not resume:
            raise TrainingError(
                f"{folder}: holds an unfinished run; continue it with --resume or give --out another folder"
            )
        return None
    if recipe.pruning.method == "lottery":
        check_ticket(recipe.pruning.ticket, to_mapping(recipe))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); give --out another folder") from None
    write_json(folder / RECIPE, to_mapping(recipe))
    return None


def _begun(folder: Path) -> bool:
    """Whether something has been trained in the folder, or a process is about to."""
    if any((folder / name).exists() for name in ("log.jsonl", "last.pt", RESULT)):
        return True
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
