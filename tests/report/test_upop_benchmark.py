"""benchmarks/upop.py: what it times, and the rows that it writes."""

import csv
import json
import runpy
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from laconic.errors import ConfigError
from laconic.report.keeping import keep
from laconic.tasks import table

from .slim_runs import finish_slim_run, finish_slim_study

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "upop.py"


class ToyTask:
    """A wide model for a control, and a narrow one for all else."""

    opened: ClassVar[list[str]] = []

    def __init__(self, recipe, cache):
        folder = Path(recipe.model.initial)
        assert (folder.name, recipe.dense.epochs) == ("model", 0)
        self.opened.append(folder.parent.name)
        self.net = nn.Linear(512, 2048 if folder.parent.name == "control" else 8)

    def example(self):
        return {"input": torch.zeros(1, 512)}


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Runs the script on folders; gives its rows by run, and its last line."""
    monkeypatch.setattr(table, "open_task", ToyTask)
    monkeypatch.setattr(ToyTask, "opened", [])
    threads = torch.get_num_threads()

    def run(capsys, *words):
        out = tmp_path / "upop.csv"
        monkeypatch.setattr(sys, "argv", ["upop.py", *map(str, words), "--csv", str(out), "--rounds", "3"])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        with out.open(newline="") as file:
            rows = {row["run"]: row for row in csv.DictReader(file)}
        return rows, json.loads(capsys.readouterr().out.splitlines()[-1])

    yield run
    torch.set_num_threads(threads)


def test_slim_models_are_timed_beside_their_control(benchmark, tmp_path, capsys):
    study = finish_slim_study(tmp_path / "runs")
    (study / "upop" / "latency.json").unlink()
    rows, said = benchmark(capsys, study)
    assert said["notes"] == []
    assert sorted(ToyTask.opened) == ["control", "upop"]  # others were timed before
    assert float(rows["upop"]["latency_ratio"]) > 1
    assert (rows["mask"]["latency_ratio"], rows["control"]["latency_ratio"]) == ("1.5000", "")
    kept = json.loads((study / "upop" / "latency.json").read_text())
    assert kept["ratio"] == pytest.approx(kept["dense_seconds"] / kept["slim_seconds"])
    assert kept["batch_8"]["ratio"] > 1


def test_a_run_without_a_control_is_not_timed_and_named(benchmark, tmp_path, capsys):
    finish_slim_run(tmp_path / "runs" / "upop", 70.0, method="upop")
    rows, said = benchmark(capsys, tmp_path / "runs")
    assert (rows["upop"]["dense"], rows["upop"]["latency_ratio"], ToyTask.opened) == ("", "", [])
    (note,) = said["notes"]
    assert "not timed, no dense run with 10 epochs" in note


def test_what_is_kept_gives_the_same_rows_and_is_not_timed(benchmark, tmp_path, capsys):
    study = finish_slim_study(tmp_path / "runs")
    before, _ = benchmark(capsys, study)
    for name in before:
        keep(study / name, tmp_path / "kept" / name)
    names = {path.name for path in (tmp_path / "kept" / "upop").iterdir()}
    assert names == {"recipe.json", "result.json", "latency.json"}
    after, said = benchmark(capsys, tmp_path / "kept", "--again")
    assert ToyTask.opened == []
    assert len(said["notes"]) == 3
    assert all("a copy without its model" in note for note in said["notes"])
    columns = set(after["upop"]) - {"command"}
    assert [{key: row[key] for key in columns} for row in after.values()] == [
        {key: row[key] for key in columns} for row in before.values()
    ]


def test_captions_of_a_slim_run_are_not_kept(tmp_path):
    with pytest.raises(ConfigError, match="keeps no captions"):
        keep(finish_slim_run(tmp_path / "upop", 70.0, method="upop"), tmp_path / "out", captions=True)
