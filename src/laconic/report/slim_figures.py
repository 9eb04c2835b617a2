"""Figures of slim models: what a task's score is against what the model costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from laconic.report.drawing import mark, subplots
from laconic.report.methods import SOFT, in_order, style_of
from laconic.report.slim_runs import SlimRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Share = Callable[[SlimRun], float | None]


def parameters_share(run: SlimRun) -> float:
    """Parameters that are left, of the dense model's."""
    return run.parameters() / run.parameters("dense")


def macs_share(run: SlimRun) -> float:
    """Multiply-adds that are left, of the dense model's."""
    return run.macs() / run.macs("dense")


PANELS: dict[str, Share] = {
    "parameters": parameters_share,
    "multiply-adds": macs_share,
    "CPU latency": lambda run: run.latency,
}


def costs_figure(runs: Sequence[SlimRun], controls: Sequence[SlimRun], title: str) -> Figure:
    """The score against the share of parameters, multiply-adds and latency that is left, one mark for each run.

    A line joins the means of a method. The dense controls stand at 100 %, with a dashed line at their mean. A panel
    without a single measurement says so.
    """
    figure, grid = subplots(1, len(PANELS), 2.9, sharey=True)
    grey = style_of("dense").colour
    for axes, (name, share) in zip(grid, PANELS.items(), strict=True):
        axes.set_xlabel(f"{name} left, percent")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
        for method in in_order([run.method for run in runs]):
            _method(axes, [run for run in runs if run.method == method], share)
        if controls:
            values = [run.value for run in controls]
            axes.axhline(fmean(values), color=grey, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
            axes.plot([1.0] * len(values), values, linestyle="", color=grey, **mark(style_of("dense")), label="dense")
        if all(share(run) is None for run in runs):
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=SOFT)
        axes.set(xlim=(0, 1.08), xticks=(0, 0.5, 1))
        axes.margins(y=0.15)
    grid[0].set_ylabel(runs[0].metric)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    figure.legend(handles, labels, loc="outside lower left", ncols=min(7, len(labels)), handletextpad=0.4)
    return figure


def _method(axes: Axes, runs: Sequence[SlimRun], share: Share) -> None:
    """A mark for each run of one method, and a line through their means at each ratio."""
    style = style_of(runs[0].method)
    points: dict[float, list[tuple[float, float]]] = {}
    for run in runs:
        at = share(run)
        if at is not None:
            points.setdefault(run.ratio, []).append((at, run.value))
    means = sorted((fmean(x for x, _ in some), fmean(y for _, y in some)) for some in points.values())
    axes.plot([x for x, _ in means], [y for _, y in means], color=style.colour, linewidth=1.4)
    every = [point for some in points.values() for point in some]
    places = [x for x, _ in every], [y for _, y in every]
    axes.plot(*places, linestyle="", color=style.colour, label=runs[0].method, **mark(style))
