"""The figures of a report: one function for each, from runs to a figure.

Called within `drawing.drawing()`. Knows nothing of how figures look, where runs lie or what is said of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from laconic import store
from laconic.report.drawing import label, mark, readable, subplots
from laconic.report.methods import RULE, SOFT, in_order, method_name, style_of
from laconic.report.runs import FinishedRun
from laconic.report.tables import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LAYERS = 24  # rows of a chart; more are summed over repeated blocks
MOST_CURVES = 5
LABEL_GAP = 11  # points from one label to the next
DODGE = 0.7  # rows over which the marks of one layer are spread, so that equal values stay visible
BINS = 160


# CIDEr against non-zeros (Figs. 3 to 5)


def cider_figure(runs: Sequence[FinishedRun], dense: FinishedRun | None, title: str) -> Figure:
    """Score against non-zeros of the pruned part, sparser to the right, one line for each method.

    Of several runs of a method at one sparsity the line takes the best; the others are hollow marks.
    """
    figure, axes = subplots(1, 1, 4.2)
    parts = runs[0].parts
    axes.set(xscale="log", xlabel=f"non-zeros of the {' and '.join(parts)}, biases included", ylabel="CIDEr")
    axes.set_title(title, pad=24)
    by_method: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_method.setdefault(method_name(run), []).append(run)
    ends = []
    for method in in_order(list(by_method)):
        style, best = style_of(method), best_by_sparsity(by_method[method])
        for run in by_method[method]:
            if run not in best:
                other = run.non_zeros(parts), 100 * run.cider
                axes.plot(*other, color=style.colour, marker=style.marker, markersize=4.5, fillstyle="none")
        x, y = [run.non_zeros(parts) for run in best], [100 * run.cider for run in best]
        axes.plot(x, y, color=style.colour, **mark(style), clip_on=False)
        ends.append((x[-1], y[-1], method, style.colour))
    if dense is not None:
        grey, y_dense = style_of("dense").colour, 100 * dense.cider
        axes.axhline(y_dense, color=grey, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        text = f"dense {y_dense:.1f}, {readable(dense.non_zeros(parts))} non-zeros"
        units = ("axes fraction", "data")
        axes.annotate(text, (0.01, y_dense), (0, 4), units, textcoords="offset points", color=grey, fontsize=8)
    axes.grid(visible=False, axis="x")
    _sparsity_levels(axes, runs, parts)
    counts = {run.non_zeros(parts) for run in runs}
    if len(counts) == 1:  # no width to take a margin of
        axes.set_xlim(2 * min(counts), min(counts) / 2)
        axes.margins(y=0.12)
    else:
        axes.margins(x=0.06, y=0.12)
        axes.invert_xaxis()
    _label_ends(axes, ends)
    return figure


def best_by_sparsity(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The best run of each method at each sparsity, by rising sparsity."""
    best: dict[tuple[float, str], FinishedRun] = {}
    for run in sorted(runs, key=lambda run: (run.cider, run.name)):
        best[run.sparsity, method_name(run)] = run
    return [best[key] for key in sorted(best)]


def _sparsity_levels(axes: Axes, runs: Sequence[FinishedRun], parts: Sequence[str]) -> None:
    """A faint line and a label above for each sparsity, and its non-zeros below."""
    from matplotlib.ticker import NullLocator

    levels = {run.sparsity: run.non_zeros(parts) for run in runs}
    for sparsity, count in levels.items():
        axes.axvline(count, color=RULE, linewidth=0.8, zorder=0)
        axes.annotate(
            f"{percent(sparsity)} sparse",
            (count, 1),
            (0, 5),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            color=SOFT,
            fontsize=8,
        )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(levels.values()), [readable(count) for count in sorted(levels.values())])


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Each line's name beside its last point; those at the right edge moved apart where they would overlap."""
    axes.figure.canvas.draw()  # so that the limits are final
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    edge = 1.05 * min(x for x, *_ in ends)
    last, early = [end for end in ends if end[0] <= edge], [end for end in ends if end[0] > edge]
    places = spread([y for _, y, *_ in last], LABEL_GAP * (high - low) / height)
    for (x, _, name, colour), place in zip(last, places, strict=True):
        label(axes, name, (x, place), (12, 0), colour)
    for x, y, name, colour in early:
        label(axes, name, (x, y), (6, -9), colour)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved apart, in their order, until neighbours are `gap` apart; groups keep their middle."""
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    groups: list[list[int]] = []
    middles: list[float] = []
    for i in order:
        groups.append([i])
        middles.append(values[i])
        while len(groups) > 1 and middles[-1] - middles[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            joined = groups[-2] + groups[-1]
            groups[-2:], middles[-2:] = [joined], [sum(values[j] for j in joined) / len(joined)]
    placed = [0.0] * len(values)
    for group, middle in zip(groups, middles, strict=True):
        for rank, i in enumerate(group):
            placed[i] = middle + gap * (rank - (len(group) - 1) / 2)
    return placed


# Training progression (Fig. 7)


def progression_figure(runs: Sequence[FinishedRun]) -> Figure:
    """Loss, validation CIDEr, sparsity, mean gate, penalty and its weight alpha along the training of a few runs."""
    figure, grid = subplots(2, 3, 4.9, sharex=True)
    panels = dict(zip(("loss", "CIDEr", "sparsity", "gate_mean", "penalty", "alpha"), grid.flat, strict=True))
    titles = ("training loss", "validation CIDEr", "sparsity", "mean gate", "penalty; dashed: the gap", "alpha")
    for axes, title in zip(panels.values(), titles, strict=True):
        axes.set_title(title)
        axes.margins(x=0.02)
    panels["sparsity"].set_ylim(-0.03, 1.03)
    panels["sparsity"].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    for run, colour in zip(runs, curve_colours(runs), strict=True):
        steps, loss = _columns(run.loss)
        panels["loss"].plot(steps, loss, color=colour, alpha=0.25, linewidth=0.7)
        panels["loss"].plot(steps, smooth(loss), color=colour, label=run.name)
        steps, cider = _columns(run.curve("CIDEr"))
        panels["CIDEr"].plot(steps, 100 * cider, color=colour, marker="o", markersize=3)
        for key in ("sparsity", "gate_mean"):
            panels[key].plot(*_columns(run.curve(key)), color=colour)
        _penalty(panels["penalty"], panels["alpha"], run, colour)
    for axes in grid[1]:
        axes.set_xlabel("step")
    figure.legend(*panels["loss"].get_legend_handles_labels(), loc="outside upper left", ncols=min(4, len(runs)))
    return figure


def _penalty(penalty: Axes, alpha: Axes, run: FinishedRun, colour: str) -> None:
    """lambda alpha |gap| in full, the gap alone in dashes, and alpha by its formula (eq. 8 of the paper)."""
    if run.pruning["method"] != "supermask":
        return
    total = max(step for step, _ in run.curve("loss"))
    steps, weighted = _columns(run.curve("penalty"))
    penalty.plot(steps, weighted, color=colour)
    steps, sparsity = _columns(run.curve("sparsity"))
    penalty.plot(steps, np.abs(run.target - sparsity), color=colour, linewidth=1.1, linestyle=(0, (2, 2)))
    alpha.plot(steps, (1 - np.cos(np.pi * np.minimum(1, steps / total))) / 2, color=colour)


def curve_colours(runs: Sequence[FinishedRun]) -> list[str]:
    """The method's colour, the paler the less sparse among runs of one method."""
    from matplotlib.colors import to_hex, to_rgb

    colours = []
    for run in runs:
        alike = [other for other in runs if method_name(other) == method_name(run)]
        strength = 0.45 + 0.55 * (alike.index(run) + 1) / len(alike)
        red, green, blue = (1 - (1 - level) * strength for level in to_rgb(style_of(method_name(run)).colour))
        colours.append(to_hex((red, green, blue)))
    return colours


def smooth(values: np.ndarray, width: int = 9) -> np.ndarray:
    """Moving average; at the ends over what there is."""
    kernel = np.ones(min(width, max(1, len(values))))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _columns(points: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(points, float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


# Layers (Fig. 8) and weights (Fig. 9)


def layers_figure(runs: Sequence[FinishedRun], sparsity: float) -> Figure:
    """Share of the weights that each layer keeps, one mark for each method; a layer that keeps none has no mark."""
    from matplotlib.ticker import NullLocator

    kept = {method_name(run): kept_by_layer(run) for run in runs}
    layers = list(next(iter(kept.values())))
    figure, axes = subplots(1, 1, 1.3 + 0.32 * len(layers))
    rows = np.arange(len(layers))[::-1]
    for place, method in enumerate(in_order(list(kept))):
        style, below = style_of(method), DODGE * (place / max(1, len(kept) - 1) - 0.5) * (len(kept) > 1)
        shares = [kept[method].get(layer) or np.nan for layer in layers]
        axes.plot(shares, rows - below, linestyle="", color=style.colour, **mark(style), label=method)
    axes.axvline(1 - sparsity, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set(xscale="log", xlabel="share of weights kept, all layers together at the dashed line")
    axes.xaxis.set_major_formatter(lambda value, _: percent(value))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(rows, layers)
    axes.set_ylim(-0.7, len(layers) - 0.3)
    axes.set_title(f"weights kept at {percent(sparsity)} sparsity")
    figure.legend(loc="outside upper left", ncols=4, handletextpad=0.1, columnspacing=1.2)
    return figure


def kept_by_layer(run: FinishedRun) -> dict[str, float]:
    """Share of non-zeros of each pruned matrix; repeated blocks are summed where there are many."""
    pruned = [t for t in run.matrices if t.name.split(".")[0] in run.parts]
    names = [t.name.removesuffix(".weight") for t in pruned]
    if len(run.parts) == 1:
        names = [name.partition(".")[2] for name in names]
    if len(names) > MOST_LAYERS:
        names = [re.sub(r"\d+", "*", name) for name in names]
    counts: dict[str, tuple[int, int]] = {}
    for name, tensor in zip(names, pruned, strict=True):
        some, all_ = counts.get(name, (0, 0))
        counts[name] = some + tensor.non_zeros, all_ + tensor.weights
    return {name: some / all_ for name, (some, all_) in counts.items()}


def densities_figure(weights: Sequence[tuple[FinishedRun, np.ndarray]], title: str) -> Figure:
    """How the weights that are not zero are distributed: one ridge for each run with its own, on a common axis.

    Ridges are of equal height, so that their forms can be compared; the counts stand beside them.
    """
    reach = float(max(np.quantile(np.abs(some), 0.995) for _, some in weights))
    edges = np.linspace(-reach, reach, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    figure, axes = subplots(1, 1, 0.9 + 0.62 * len(weights))
    for row, (run, some) in enumerate(reversed(weights)):
        colour = style_of(method_name(run)).colour
        heights = np.histogram(some, edges)[0].astype(float)
        ridge = row + 0.85 * heights / heights.max()
        axes.fill_between(middle, row, ridge, color=colour, alpha=0.25, linewidth=0)
        axes.plot(middle, ridge, color=colour, linewidth=1.2)
        facts = f"{readable(len(some))} weights\nstd {some.std():.3f}"
        axes.annotate(facts, (reach, row + 0.42), ha="right", va="center", color=SOFT, fontsize=7.5)
    axes.set_yticks(np.arange(len(weights)) + 0.12, [method_name(run) for run, _ in reversed(weights)])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(-reach, reach), ylim=(-0.1, len(weights)), xlabel="weight, of those that are not zero")
    axes.set_title(title)
    return figure


def non_zero_weights(run: FinishedRun, parts: Sequence[str]) -> np.ndarray:
    """Values of the matrices of these parts that are not zero, float32, in one row."""
    packed = store.load(run.model)
    values = np.concatenate([packed[t.name].ravel() for t in run.matrices if t.name.split(".")[0] in parts])
    return np.asarray(values[values != 0])
