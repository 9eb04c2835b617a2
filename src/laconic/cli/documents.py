"""What verbs write line by line, and as JSON: all that `caption` needs, which should not wait for tables and bars."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laconic.cli.messages import show
from laconic.cli.paths import STDOUT
from laconic.machine.files import write_text


@contextmanager
def lines_with_bar(name: str, of: int, *, shown: bool) -> Iterator[Callable[[int, str], None]]:
    """A function that takes how many of `of` things are done and shows a line about the last on standard output.

    Below the lines, or on standard error where the lines go elsewhere, there is a bar with the time left, if that is a
    terminal. `shown` is off where standard output is kept for JSON.
    """
    lines_on_terminal = shown and sys.stdout.isatty()
    if of < 2 or not (lines_on_terminal or sys.stderr.isatty()):
        yield lambda done, text: show(text) if shown else None
        return
    from laconic.cli.console import console_for, tell
    from laconic.cli.progress import bar_below

    console = console_for(None if lines_on_terminal else STDOUT)
    with bar_below(name, of, console) as move:

        def step(done: int, text: str) -> None:
            if lines_on_terminal:
                tell(console, text)
            elif shown:
                show(text)
            move(done)

        yield step


def write_json(value: Any, target: Path | None) -> None:
    """To standard output for "-"; else to a file, atomically. None does nothing."""
    if target is None:
        return
    text = json.dumps(value, indent=1, allow_nan=False)
    if target == STDOUT:
        print(text)
        return
    write_text(target, text + "\n")
