"""Line charts as inline SVG, for pages that must not load anything.

Colours come from the page's style sheet through the class of each line. Knows nothing of training or
captions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 24  # margins around the plot
MAX_POINTS = 240  # of one line; more cannot be told apart at this size


@dataclass(frozen=True)
class Line:
    """One line of a chart: `kind` is its class in the style sheet, `points` are (x, y) by rising x."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, lines: Sequence[Line], *, top: float | None = None, unit: str = "g") -> str:
    """An `<svg>` of all lines over a common x axis from 0; `top` fixes the upper end of the y axis.

    `unit` is how numbers of the y axis are written, a format such as "g" or ".0%".

    Raises:
        ValueError: where no line has a point.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError(f"chart {title!r} has nothing to show")
    right = max(x for x, _ in points) or 1.0
    ticks = y_ticks(max(y for _, y in points) if top is None else top, min(y for _, y in points))
    low, high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / right
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (min(y, high) - low) / (high - low)

    label = f"{title}; " + ", ".join(f"{line.name} ends at {line.points[-1][1]:.3g}" for line in lines if line.points)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        *(_tick(f"{tick:{unit}}", place(0, tick)[1]) for tick in ticks),
        f'<text class="tick" x="{LEFT}" y="{HEIGHT - 6}">0</text>',
        f'<text class="tick end" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}">{right:,.0f} steps</text>',
        *(_polyline(line, [place(*point) for point in thin(line.points)]) for line in lines),
        "</svg>",
    ]
    return "".join(parts)


def y_ticks(high: float, low: float = 0.0) -> tuple[float, ...]:
    """Round numbers from 0, or from at most `low` where that is negative, to at least `high`; two to seven."""
    if low < 0:
        step = y_ticks(max(high, -low))[1]
        return tuple(step * n for n in range(math.floor(low / step), max(0, math.ceil(high / step)) + 1))
    if high <= 0:
        return 0.0, 1.0
    power = 1.0
    while power > high:
        power /= 10
    while power * 10 <= high:
        power *= 10
    step = next(s * power for s in (0.5, 1, 2, 2.5, 5) if 3 * s * power >= high * (1 - 1e-9))
    count = next(n for n in (1, 2, 3) if n * step >= high * (1 - 1e-9))
    return tuple(i * step for i in range(count + 1))


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of the points, evenly chosen, first and last among them."""
    if len(points) <= MAX_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def _tick(text: str, y: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{text}</text>'
    )


def _polyline(line: Line, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return (
        f'<polyline class="line {line.kind}" points="{path}"/>'
        f'<circle class="dot {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    )
