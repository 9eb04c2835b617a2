"""Whole captioners by the bytes of their files, and what each keeps of the score of the dense one it was made from."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laconic.report.drawing import subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLOSE = 1.5  # times larger than the one before: their names would lie on each other
OURS, OTHERS = "#2166ac", "#8a8a8a"


@dataclass(frozen=True)
class Point:
    """A packed captioner, or a published one.

    Attributes:
        name: which it is; of a published one, with its data set.
        bytes: of its file.
        cider, dense_cider: times 100; of the dense captioner it was made from.
    """

    name: str
    bytes: float
    cider: float
    dense_cider: float

    @property
    def share(self) -> float:
        """Of the dense score, in per cent."""
        return 100 * self.cider / self.dense_cider


def envelope(points: Sequence[Point]) -> list[Point]:
    """Those that no smaller file equals, smallest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes, -point.share)):
        if not best or point.share > best[-1].share:
            best.append(point)
    return best


def frontier_figure(points: Sequence[Point], published: Sequence[Point]) -> "Figure":
    """Share of the dense CIDEr against megabytes; a line through the files that no smaller one equals."""
    figure, axes = subplots(1, 1, 4.8)
    axes.set(xscale="log", xlabel="megabytes of the file", ylabel="share of the best dense captioner's CIDEr, %")
    best = envelope(points)
    axes.plot(
        [p.bytes / 1e6 for p in points], [p.share for p in points], "o", color=OURS, markersize=5, fillstyle="none"
    )
    axes.plot([p.bytes / 1e6 for p in best], [p.share for p in best], "o-", color=OURS, markersize=5)
    middle = math.sqrt(best[0].bytes * best[-1].bytes) if best else 0.0
    for before, point in zip([None, *best], best, strict=False):
        left = point.bytes > middle and not (before and point.bytes < CLOSE * before.bytes)
        _name(axes, point, left=left, up=6 if left else -4)
    for point, marker in zip(published, itertools.cycle("sD^v"), strict=False):  # named below: they lie near each other
        shown = f"{point.name}: {point.cider:.1f}"
        axes.plot(point.bytes / 1e6, point.share, marker, color=OTHERS, markersize=5, linestyle="none", label=shown)
    if published:
        axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.16), fontsize=8, labelcolor=OTHERS)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(x=0.15, y=0.12)
    return figure


def _name(axes: "Axes", point: Point, *, left: bool, up: float) -> None:
    """Name and score beside a point, on the side where the line is not."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        f"{point.name}: {point.cider:.1f}",
        (point.bytes / 1e6, point.share),
        (-7 if left else 7, up),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        color=OURS,
        fontsize=8,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )
