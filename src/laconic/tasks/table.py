"""The table of tasks, and `open_task`. A row says where a task is, so that recipes are read without torch."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.errors import ConfigError
from laconic.tasks.settings import SlimRecipe

if TYPE_CHECKING:
    from laconic.tasks.task import Task

Show = Callable[[str, int, int], None]  # (what is being done, done, of)

TASKS: dict[str, str] = {
    "classify": "laconic.tasks.classify:open_task",
    "segment": "laconic.tasks.segment:open_task",
    "retrieval": "laconic.tasks.retrieval:open_task",
    "caption": "laconic.tasks.caption:open_task",
    "vqa": "laconic.tasks.vqa:open_task",
    "nlvr2": "laconic.tasks.nlvr2:open_task",
}


def open_task(recipe: SlimRecipe, cache: Path, show: Show = lambda *_: None) -> "Task":
    """The recipe's task over its model and data.

    Args:
        cache: folder of cached images and features.
        show: told how far the reading of images is.

    Raises:
        ConfigError, DataError, FormatError: for what cannot be, is not there, or does not fit; naming key or file.
    """
    if recipe.task not in TASKS:
        raise ConfigError(f"task = {recipe.task!r}; choose one of {', '.join(TASKS)}")
    module, _, name = TASKS[recipe.task].partition(":")
    opened: Task = getattr(import_module(module), name)(recipe, cache, show)
    return opened
