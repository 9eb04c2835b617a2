"""Slim Transformers beside their dense controls: results/upop.csv from the folders of finished runs.

    python benchmarks/upop.py runs/upop_classification runs/upop_retrieval --csv results/upop.csv

Each slim model is timed beside the dense control of equal training, interleaved on one thread, for one example and for
a batch of eight. What was measured is kept in the run's folder as latency.json, which `laconic report` reads, too; a
run that has one is not timed again without --again. Scores and costs are those that the runs themselves wrote down.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from laconic.bench.latency import latency
from laconic.cli.study import command_of, recipe_commands
from laconic.config import from_mapping
from laconic.machine.files import write_text
from laconic.report.runs import run_folders
from laconic.report.slim_runs import TIMING, SlimRun, control_of, is_slim, read_slim_runs
from laconic.report.slim_tables import csv_text
from laconic.spec.manifest import NET
from laconic.tasks.settings import SlimRecipe, Stage
from laconic.tasks.table import open_task

BATCH = 8


def open_finished(run: SlimRun, cache_folder: Path) -> Any:
    """The task of a finished run, with the final model as its `net`."""
    recipe = from_mapping(dict(run.recipe), SlimRecipe, str(run.folder))
    model = replace(recipe.model, initial=str((run.folder / NET).resolve()))
    return open_task(replace(recipe, model=model, dense=Stage()), cache_folder)


def measured(slim: Any, dense: Any, rounds: int) -> dict[str, Any]:
    """CPU seconds of both models on the example of their task, and how many times faster the slim one is."""
    example, found = slim.example(), {}
    for batch in (1, BATCH):
        timed = latency(dense.net, slim.net, example, batch=batch, rounds=rounds)
        found[batch] = {"ratio": timed.ratio, "dense_seconds": timed.dense, "slim_seconds": timed.slim}
    return {**found[1], "rounds": rounds, f"batch_{BATCH}": found[BATCH]}


def measure(runs: Sequence[SlimRun], cache_folder: Path, rounds: int, again: bool) -> list[str]:
    """Times every slim run that has a control; gives a line for each that has none."""
    notes = []
    opened = cache(lambda name: open_finished({str(run.folder): run for run in runs}[name], cache_folder))
    for run in runs:
        control = control_of(run, runs)
        if run.is_dense or (run.timing and not again):
            continue
        if not (run.folder / NET).is_dir():
            notes.append(f"{run.folder}: not timed, a copy without its model")
            continue
        if control is None:
            notes.append(f"{run.folder}: not timed, no dense run with {run.epochs} epochs of training")
            continue
        table = measured(open_finished(run, cache_folder), opened(str(control.folder)), rounds)
        write_text(run.folder / TIMING, json.dumps(table, indent=1) + "\n")
        beside = table[f"batch_{BATCH}"]["ratio"]
        print(f"{run.folder}: {table['ratio']:.2f} x, batch of {BATCH} {beside:.2f} x", flush=True)
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, or folders that hold them")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="of images and features")
    parser.add_argument("--recipes", type=Path, action="append", help="folders of recipes, whose commands are named")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--again", action="store_true", help="time those that were timed before, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folders = [folder for folder in run_folders(options.runs) if is_slim(folder)]
    runs, notes = read_slim_runs(folders)
    notes += measure(runs, options.cache, options.rounds, options.again)
    runs, _ = read_slim_runs(folders)  # with what was measured
    commands = recipe_commands(tuple(options.recipes or [Path("recipes")]))
    write_text(options.csv, csv_text(runs, {str(run.folder): command_of(run, commands) for run in runs}))
    print(json.dumps({"csv": str(options.csv), "runs": len(runs), "notes": notes}))


if __name__ == "__main__":
    main()
