"""When weights go: the cubic sparsity schedule of gradual pruning (Zhu, Gupta 2017), a pure function of the step."""

from dataclasses import dataclass
from typing import Protocol

from laconic.errors import PruningError

# The rule of arXiv 2110.03298: from the end of the first of 15 epochs to half of the training, every 1000 steps,
# which made 49 intervals there. Shorter trainings keep the 49 intervals.
EPOCHS = 15
END = 0.5
INTERVAL = 1000
INTERVALS = 49


class Schedule(Protocol):
    """How the sparsity grows while the model trains. A frozen dataclass, whose fields are options."""

    def over(self, steps: int) -> tuple[int, int, int]:
        """Step of the first pruning, of the last one, and steps between two, in a training of so many steps.

        Raises PruningError where they do not fit.
        """
        ...

    def sparsity(self, target: float, step: int, steps: int) -> float | None:
        """What to prune to at a step (counted from 1); None where nothing is to be done."""
        ...


@dataclass(frozen=True)
class Cubic:
    """When gradual pruning prunes: s(t) = s (1 - (1 - p)^3), p from 0 at `start` to 1 at `end`.

    Attributes:
        start: step of the first pruning; None: a fifteenth of the training, the paper's rule.
        end: step of the last pruning; None: half of the training.
        interval: steps between two prunings; None: at most 1000, and few enough for 49 prunings. The end moves down to
            a whole number of them.

    Raises:
        PruningError: for negative numbers, and by `over` and `sparsity` where a training is too short for them.
    """

    start: int | None = None
    end: int | None = None
    interval: int | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and self.interval < 1:
            raise PruningError(f"Cubic: interval = {self.interval}; give at least one step")
        for name in ("start", "end"):
            if (getattr(self, name) or 0) < 0:
                raise PruningError(f"Cubic: {name} = {getattr(self, name)}; give a step of the training, 0 or more")

    def over(self, steps: int) -> tuple[int, int, int]:
        """start, end and interval for a training of so many steps."""
        start = steps // EPOCHS if self.start is None else self.start
        end = int(END * steps) if self.end is None else self.end
        interval = self.interval
        if interval is None:
            interval = min(INTERVAL, max(1, (end - start) // INTERVALS))
        if self != Cubic() and not start + interval <= end <= steps:
            raise PruningError(
                f"Cubic: cuts from step {start} to {end}, every {interval}, do not fit a training of {steps} steps; "
                "give start + interval <= end <= steps, or leave them to the paper's rule"
            )
        return start, start + max(1, (end - start) // interval) * interval, interval

    def sparsity(self, target: float, step: int, steps: int) -> float | None:
        """What to prune to at a step (counted from 1); None where nothing is to be done."""
        start, end, interval = self.over(steps)
        if not start <= step <= end or (step - start) % interval:
            return None
        return float(target * (1 - (1 - (step - start) / (end - start)) ** 3))
