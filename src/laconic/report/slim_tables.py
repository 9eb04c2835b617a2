"""Slim models as rows: the CSV file of all, and a Markdown table for each task. Equal runs give equal bytes."""

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from laconic.report.methods import in_order
from laconic.report.slim_runs import SlimRun, control_of
from laconic.report.tables import markdown_table, percent

COLUMNS = (
    *("task", "method", "ratio", "metric", "value", "dense", "baseline", "parameters", "macs"),
    *("parameters_ratio", "macs_ratio", "latency_ratio", "seed", "command", "run", "budget", "epochs"),
)


def in_reading_order(runs: Sequence[SlimRun]) -> list[SlimRun]:
    """By task; method, dense first; ratio; seed."""
    methods = in_order([run.method for run in runs])
    return sorted(runs, key=lambda r: (r.task, methods.index(r.method), r.ratio, r.epochs, r.seed, r.name))


def csv_text(runs: Sequence[SlimRun], commands: Mapping[str, str]) -> str:
    """One row for each run, COLUMNS long; `commands` are by the runs' folders. What is not known is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_row(run, runs, commands.get(str(run.folder), "")) for run in in_reading_order(runs))
    return file.getvalue()


def csv_row(run: SlimRun, runs: Sequence[SlimRun], command: str) -> dict[str, Any]:
    """What a run has come to, beside the dense control of equal training among `runs`.

    Ratios say how many times smaller or faster it is; `baseline` is the best score without looking.
    """
    control, latency = control_of(run, runs), run.latency
    return {
        "task": run.task,
        "method": run.method,
        "ratio": run.ratio,
        "metric": run.metric,
        "value": f"{run.value:.4f}",
        "dense": "" if control is None else f"{control.value:.4f}",
        "baseline": f"{max(run.baselines.values()):.4f}" if run.baselines else "",
        "parameters": run.parameters(),
        "macs": run.macs(),
        "parameters_ratio": f"{run.parameters('dense') / run.parameters():.4f}",
        "macs_ratio": f"{run.macs('dense') / run.macs():.4f}",
        "latency_ratio": "" if latency is None else f"{1 / latency:.4f}",
        "seed": run.seed,
        "command": command,
        "run": run.name,
        "budget": run.budget,
        "epochs": run.epochs,
    }


def task_table(runs: Sequence[SlimRun]) -> str:
    """Scores and costs of the runs of one task; shares are those of the dense control of equal training."""
    others = [name for name in runs[0].scores if name != runs[0].metric]
    head = ["run", "method", "ratio", "epochs", runs[0].metric, "of dense", *others]
    head += ["parameters", "multiply-adds", "latency"]
    return markdown_table(head, [_line(run, runs, others) for run in in_reading_order(runs)], texts=2)


def _line(run: SlimRun, runs: Sequence[SlimRun], others: Sequence[str]) -> list[str]:
    control = control_of(run, runs)
    known = control is not None and control is not run and control.value > 0
    return [
        run.name,
        run.method,
        "" if run.is_dense else percent(run.ratio),
        f"{run.epochs}",
        f"{run.value:.2f}",
        percent(run.value / control.value, 1) if known and control is not None else "",
        *(f"{run.scores[name]:.2f}" if name in run.scores else "" for name in others),
        _count(run.parameters(), run.parameters("dense"), "M", 1e6),
        _count(run.macs(), run.macs("dense"), "G", 1e9),
        "" if run.latency is None else percent(run.latency, 0),
    ]


def _count(now: int, dense: int, unit: str, size: float) -> str:
    return f"{now / size:.3g} {unit}" + (f" ({percent(now / dense, 0)})" if now != dense else "")


def seeds_table(runs: Sequence[SlimRun]) -> str:
    """Mean and range over runs of one task that differ in their seed alone; empty where there are none."""
    groups: dict[tuple[str, float, str, int, int], list[SlimRun]] = {}
    for run in in_reading_order(runs):
        groups.setdefault((run.method, run.ratio, run.budget, run.epochs, run.parameters("dense")), []).append(run)
    lines = []
    for (method, ratio, _, epochs, _), group in groups.items():
        values = [run.value for run in group]
        if len({run.seed for run in group}) > 1:
            numbers = [f"{value:.2f}" for value in (fmean(values), min(values), max(values))]
            lines.append([method, percent(ratio) if ratio else "", f"{epochs}", f"{len(group)}", *numbers])
    head = ["method", "ratio", "epochs", "runs", f"mean {runs[0].metric}", "lowest", "highest"]
    return markdown_table(head, lines) if lines else ""


def baselines_line(runs: Sequence[SlimRun]) -> str:
    """Such as "Without looking, accuracy is 5.9 (chance) and 5.9 (no image)."; empty where nothing is known."""
    known = next((run.baselines for run in runs if run.baselines), {})
    values = [f"{value:.2f} ({name})" for name, value in known.items()]
    return f"Without looking, {runs[0].metric} is {' and '.join(values)}.\n" if values else ""
