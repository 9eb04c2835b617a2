"""What is kept of runs in results/: those of their studies, small, with captions of the cited ones alone."""

import csv
import re
import runpy
import shutil
from pathlib import Path

import pytest

from laconic.config import read_toml
from laconic.recipes.folders import finished
from laconic.recipes.recipe import Recipe
from laconic.recipes.study import read_study
from laconic.report.runs import read_runs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
STUDIES = [path.parent.name for path in sorted(RESULTS.glob("*/runs"))]


@pytest.mark.parametrize("study", STUDIES)
def test_the_runs_that_are_kept_are_those_of_the_study(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / study
    shutil.copytree(RESULTS / study / "runs", folder)
    planned = {run.name: run.recipe for run in read_study(ROOT / "recipes" / "studies" / f"{study}.toml", folder)}
    kept, notes = read_runs([folder])
    assert notes == []
    for run in kept:
        assert finished(folder / run.name, planned[run.name]) == run.result  # refuses other settings


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_says_what_its_captions_are_like_and_has_its_log(study):
    kept, _ = read_runs([RESULTS / study / "runs"])
    assert [run.name for run in kept if run.quality is None or not run.log] == []


def test_captions_are_kept_of_cited_runs_alone():
    text = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf8").partition("## What is kept of the runs")[2]
    cited = {
        (study, run)
        for runs, study in re.findall(r"((?:`[\w.]+`(?:, |,\n| and |\sand\s| ))+)of `(\w+)`", " ".join(text.split()))
        for run in re.findall(r"`([\w.]+)`", runs)
    }
    kept = {(path.parts[-4], path.parts[-2]) for path in RESULTS.rglob("captions.json*")}
    assert kept == cited


def test_texts_are_short():
    """Of compressed files and figures git keeps what they are; a text is read in differences, line by line."""
    listed = [path for path in RESULTS.rglob("*") if path.is_file() and path.suffix not in (".gz", ".png")]
    assert sum(path.read_text(encoding="utf8").count("\n") for path in listed) < 3000


def test_the_digests_are_of_every_run_that_the_benchmark_does(tmp_path):
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "digests.py"), run_name="digests")
    with (RESULTS / "digests.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == list(benchmark["CASES"])
    for name, case in benchmark["CASES"].items():
        (tmp_path / "recipe.toml").write_text(benchmark["recipe_of"](case, tmp_path))
        recipe = read_toml(tmp_path / "recipe.toml", Recipe)
        assert recipe.pruning.method == case.get("pruning", {}).get("method", "none"), name
    assert benchmark["needed"](benchmark["CASES"]["frozen_gates"]) == {"supermask"}
