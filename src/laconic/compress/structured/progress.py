"""How the compression of a search grows: UPop's schedule, and the steps at which masks are set.

The published code counts (t + 1) / T where Algorithm 1, line 10, has t / (T - 1); it is what made the tables, and it is
the default here. Both end at the ratio.
"""

import math

from laconic.errors import PruningError


def ratio_at(step: int, steps: int, ratio: float) -> float:
    """p_t = p sqrt((1 - cos(pi (t + 1) / T)) / 2) at step t of T, counted from 0."""
    return ratio * math.sqrt((1 - math.cos(math.pi * (step + 1) / steps)) / 2)


def ratio_on_paper(step: int, steps: int, ratio: float) -> float:
    """p_t as in Algorithm 1, line 10: p sqrt((1 - cos(pi t / (T - 1))) / 2)."""
    if steps == 1:
        return ratio
    return ratio * math.sqrt(0.5 * (1 - math.cos(math.pi * step / (steps - 1))))


SCHEDULES = {"code": ratio_at, "paper": ratio_on_paper}


def updates_at(step: int, steps: int, interval: int, first: bool = True) -> bool:
    """Whether masks are set after step t of T: every `interval` steps, after the last, and `first`: after step 0."""
    return step == steps - 1 or (step % interval == 0 and (first or step > 0))


def usual_interval(ratio: float, steps: int) -> int:
    """The steps that 1 % of compression takes on average, the authors' rule; at least 1."""
    return max(1, round(steps / (100 * ratio)))


def check_search(ratio: float, steps: int, interval: int) -> None:
    """PruningError for numbers that no search can have."""
    if not 0 < ratio < 1:
        raise PruningError(f"ratio={ratio}: give the share of the budget that goes, 0 < ratio < 1")
    if steps < 1:
        raise PruningError(f"steps={steps}: give the number of training steps of the search, at least 1")
    if interval < 0:
        raise PruningError(f"interval={interval}: give steps between two updates of the masks, or 0 for the usual")
