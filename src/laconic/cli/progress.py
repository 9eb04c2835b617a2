"""How the command line shows what is under way: live bars in a terminal, plain lines elsewhere.

Knows what a run reports; decides and computes nothing. Imports no torch by itself.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from laconic.cli.console import tell

if TYPE_CHECKING:
    from laconic.recipes.run import Watcher
    from laconic.training import given as train

SPEED_WINDOW = 600.0  # seconds over which time left is estimated: longer than a validation
LINE_EVERY = 20.0  # seconds between two lines where there is no terminal

Show = Callable[[str, int, int, str], None]  # name, done, of, facts


@contextmanager
def watching(console: Console) -> "Iterator[Watcher]":
    """Shows a run as it goes: bars with time left in a terminal, a line now and then elsewhere."""
    from laconic.recipes.run import Watcher

    def watcher(show: Show) -> Watcher:
        return Watcher(
            stage=lambda name, done, of: show(name, done, of, ""),
            progress=lambda at: show("training", at.step, at.steps, training_facts(at)),
            say=lambda line: tell(console, line),
        )

    with stages(console) as show:
        yield watcher(show)


@contextmanager
def stages(console: Console) -> Iterator[Show]:
    """A function that shows how far each stage is: a bar in a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with _Bars(console) as bars:
            yield bars.show
    else:
        yield Lines(console).show


@contextmanager
def bar_below(name: str, of: int, console: Console) -> Iterator[Callable[[int], None]]:
    """A function that takes how many of `of` things are done and moves a bar, which goes away in the end."""
    with _Bars(console, transient=True) as bars:
        bars.show(name, 0, of, "")
        yield lambda done: bars.show(name, done, of, "")


def training_facts(at: "train.Progress") -> str:
    """Such as "epoch 3  loss 2.310  sparsity 42.1 %  rate 5.0e-04  CIDEr 41.2"."""
    facts = [f"epoch {at.epoch}", f"loss {at.loss:.3f}"]
    for key, text in {
        "sparsity": lambda value: f"sparsity {value:.1%}",
        "lr": lambda value: f"rate {value:.1e}",
    }.items():
        if key in at.facts:
            facts.append(text(at.facts[key]))
    if at.score is not None:
        name, value = at.score
        facts.append(f"{name} {value:.1f}")
    return "  ".join(facts)


class _Bars(Progress):
    """A bar per stage, and below them a line of facts about the last one."""

    def __init__(self, console: Console, *, transient: bool = False) -> None:
        self._stages: dict[str, TaskID] = {}
        self._facts = ""
        super().__init__(  # draws at once
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=min(40, max(10, console.width - 40))),
            TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            speed_estimate_period=SPEED_WINDOW,
            transient=transient,
            redirect_stdout=not console.stderr,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self._facts:
            yield Text(self._facts, style="dim")

    def show(self, name: str, done: int, of: int, facts: str) -> None:
        self._facts = facts or self._facts
        if name not in self._stages:  # what an earlier sitting did is no measure of this one's speed
            self._stages[name] = self.add_task(name, total=of, completed=done)
        self.update(self._stages[name], completed=done, total=of)


class Lines:
    """A line at the start and the end of each stage, and now and then in between, with an estimate of the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: dict[str, tuple[float, int]] = {}
        self._shown: dict[str, float] = {}

    def show(self, name: str, done: int, of: int, facts: str) -> None:
        now = time.monotonic()
        if done < of and now - self._shown.get(name, -math.inf) < LINE_EVERY:
            return
        self._shown[name] = now
        began, before = self._begun.setdefault(name, (now, done))  # what an earlier sitting did is no measure
        parts = [f"{name}: {done:,} of {of:,}", facts]
        if before < done < of:
            parts.append(f"{time_left((now - began) / (done - before) * (of - done))} left")
        tell(self._console, "  ".join(filter(None, parts)))


def time_left(seconds: float) -> str:
    """Such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
