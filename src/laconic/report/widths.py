"""How much of each module a slim model keeps: a map of parts and layers, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from laconic.report.drawing import subplots
from laconic.report.methods import INK, SOFT
from laconic.report.slim_runs import SlimGroup, SlimRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALE, FULL = "#fbf3ec", "#b3471f"  # nothing kept, everything kept
ROW = 0.27  # inches
DARK = 0.6  # share kept from which numbers are written in white
MOST_MAPS = 6  # of one figure


@dataclass(frozen=True, eq=False)
class WidthMap:
    """Shares of units kept.

    Attributes:
        parts: names of the rows.
        kept: (parts, layers), 0 to 1; NaN where a part has no such layer.
    """

    parts: tuple[str, ...]
    kept: np.ndarray


def width_map(groups: Sequence[SlimGroup]) -> WidthMap:
    """Rows are parts, in the order of the model; where a part has two modules in a layer, each has a row."""
    rows: dict[tuple[str, int], dict[int, float]] = {}
    for place, group in enumerate(groups):
        layer = _layer(group.name)
        if layer is None:  # one after another
            layer = sum(earlier.part == group.part for earlier in groups[:place])
        twin = next(n for n in range(len(groups)) if layer not in rows.get((group.part, n), {}))
        rows.setdefault((group.part, twin), {})[layer] = group.kept
    kept = np.full((len(rows), 1 + max(max(row) for row in rows.values())), np.nan)
    for line, row in zip(kept, rows.values(), strict=True):
        line[list(row)] = list(row.values())
    twins = {part for part, twin in rows if twin}
    return WidthMap(tuple(f"{part} {twin + 1}" if part in twins else part for part, twin in rows), kept)


def _layer(name: str) -> int | None:
    """The last number that is a name of its own in a path, such as 3 in "encoder.layers.3.mlp"."""
    numbers = [word for word in name.split(".") if word.isdecimal() and len(word) <= 3]
    return int(numbers[-1]) if numbers else None


def widths_figure(runs: Sequence[SlimRun], title: str) -> Figure:
    """One map for each run, with the share kept in percent in each cell."""
    maps = [width_map(run.groups) for run in runs[:MOST_MAPS]]
    heights = [len(found.parts) for found in maps]
    height = 0.75 + sum(ROW * rows + 0.42 for rows in heights)
    figure, grid = subplots(len(maps), 1, height, squeeze=False, sharex=True, height_ratios=heights)
    for axes, found, run in zip(grid[:, 0], maps, runs, strict=False):
        _draw(axes, found)
        axes.set_title(f"{run.method}, {run.metric} {run.value:.1f}", fontsize=8.5, fontweight="normal", pad=4)
    grid[-1, 0].set_xlabel("layer")
    figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure


def _draw(axes: Axes, found: WidthMap) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("kept", [PALE, FULL])
    rows, layers = found.kept.shape
    edges = np.arange(layers + 1) - 0.5, np.arange(rows + 1) - 0.5
    axes.pcolormesh(*edges, found.kept, cmap=colours, vmin=0, vmax=1, edgecolors="white", linewidth=1.2)
    for (row, layer), share in np.ndenumerate(found.kept):
        if np.isfinite(share):
            colour = "white" if share >= DARK else INK if share else SOFT
            text = percent_kept(float(share))
            axes.text(layer, row, text, ha="center", va="center", color=colour, fontsize=7.5 if layers <= 16 else 6)
    axes.set(xlim=(-0.5, max(layers, 4) - 0.5), ylim=(rows - 0.5, -0.5))
    axes.set_xticks(np.arange(layers), [f"{layer + 1}" for layer in range(layers)])
    axes.set_yticks(np.arange(rows), found.parts)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def percent_kept(share: float) -> str:
    """Whole percent; "<1" where something is left that would be rounded to nothing, and "0" for nothing alone."""
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"
