"""The sections of a report about slim Transformers: one for each task, with its table and figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from laconic.machine.files import write_text
from laconic.report.drawing import write_figure
from laconic.report.methods import in_order
from laconic.report.slim_figures import costs_figure
from laconic.report.slim_runs import SlimRun, control_of
from laconic.report.slim_tables import baselines_line, csv_text, seeds_table, task_table
from laconic.report.tables import percent
from laconic.report.widths import MOST_MAPS, widths_figure

CSV = "slim.csv"
NOTE = """
`epochs` are those of all training, of the runs that a run goes on from, too. `of dense` compares with the dense model
of the same training: as many epochs, the same data. Parameters and multiply-adds are of the whole model, for one
example; shares in brackets and latency are of the dense model's. Latency is CPU time on one thread.
"""


def slim_sections(
    runs: Sequence[SlimRun], out: Path, commands: Mapping[str, str], note: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Writes slim.csv and the figures of each task into `out`; gives (title, text) of the sections.

    Args:
        commands: what repeats each run, by its folder.
        note: told what is left out, a line each.
    """
    write_text(out / CSV, csv_text(runs, commands))
    tasks: dict[str, list[SlimRun]] = {}
    for run in runs:
        tasks.setdefault(run.task, []).append(run)
    return [(f"Slim models: {task}", _task(found, out, note)) for task, found in sorted(tasks.items())]


def _task(runs: Sequence[SlimRun], out: Path, note: Callable[[str], None]) -> str:
    task, slim = runs[0].task, [run for run in runs if not run.is_dense]
    parts = [task_table(runs) + NOTE + baselines_line(runs)]
    if repeated := seeds_table(runs):
        parts.append("Runs that differ in their seed alone:\n\n" + repeated)
    controls = {str(found.folder): found for run in slim if (found := control_of(run, runs)) is not None}
    for run in slim:
        if control_of(run, runs) is None:
            note(f"share of dense of {run.name} ({task}): no dense run with {run.epochs} epochs of training")
        if run.latency is None:
            note(f"latency of {run.name} ({task}): not measured; benchmarks/upop.py measures it")
    if not slim:
        note(f"figures of {task}: no slim run")
        return "\n".join(parts)
    figure = costs_figure(slim, list(controls.values()), f"{task}: {slim[0].metric} against cost")
    write_figure(figure, out / "figures" / f"slim_{task}_costs.png")
    parts.append(f"![Score against parameters, multiply-adds and latency](figures/slim_{task}_costs.png)\n")
    for number, some in enumerate(_compared(slim), 1):
        title = f"{task}: units kept in percent, at {percent(some[0].ratio)} of the {some[0].budget} gone"
        write_figure(widths_figure(some, title), out / "figures" / f"slim_{task}_widths_{number}.png")
        parts.append(f"![Units kept by part and layer](figures/slim_{task}_widths_{number}.png)\n")
        if len(some) > MOST_MAPS:
            note(f"widths of {', '.join(run.name for run in some[MOST_MAPS:])} ({task}): a figure has {MOST_MAPS} maps")
    return "\n".join(parts)


def _compared(slim: Sequence[SlimRun]) -> list[list[SlimRun]]:
    """The best run of each method, for each ratio and budget that was tried; those with widths to show."""
    best: dict[tuple[float, str], dict[str, SlimRun]] = {}
    for run in sorted(slim, key=lambda run: (run.value, run.name)):
        if run.groups:
            best.setdefault((run.ratio, run.budget), {})[run.method] = run
    return [[found[method] for method in in_order(list(found))] for _, found in sorted(best.items())]
