"""Whole captioners by the bytes of their files, and what each keeps of the score of the dense one it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laconic.report.drawing import label, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    figure, axes = subplots(1, 1, 4.2)
    axes.set(xscale="log", xlabel="megabytes of the file", ylabel="share of the dense captioner's CIDEr, %")
    best = envelope(points)
    axes.plot(
        [p.bytes / 1e6 for p in points], [p.share for p in points], "o", color=OURS, markersize=5, fillstyle="none"
    )
    axes.plot([p.bytes / 1e6 for p in best], [p.share for p in best], "o-", color=OURS, markersize=5)
    for point in best:
        label(axes, f"{point.name}: {point.cider:.1f}", (point.bytes / 1e6, point.share), (6, -8), OURS)
    for point in published:
        axes.plot(point.bytes / 1e6, point.share, "s", color=OTHERS, markersize=5)
        name, place = f"{point.name}: {point.cider:.1f}", (point.bytes / 1e6, point.share)
        axes.annotate(
            name, place, (-7, 0), textcoords="offset points", ha="right", va="center", color=OTHERS, fontsize=8
        )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(x=0.15, y=0.12)
    return figure
