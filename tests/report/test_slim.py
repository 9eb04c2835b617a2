"""Reports of slim models: what runs are compared with, tables, maps of widths, and whole reports."""

import csv
import io
import json

import numpy as np
import pytest

from laconic.errors import ConfigError
from laconic.report.compose import write_report
from laconic.report.slim_runs import SlimGroup, control_of, read_slim_runs
from laconic.report.slim_tables import COLUMNS, csv_row, seeds_table, task_table
from laconic.report.widths import percent_kept, width_map

from .conftest import finish_run
from .slim_runs import finish_slim_run, finish_slim_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finish_slim_study(tmp_path_factory.mktemp("flowers"))


@pytest.fixture
def runs(study):
    found, notes = read_slim_runs(sorted(study.iterdir()))
    assert notes == []
    return {run.name: run for run in found}


# Which runs are compared


def test_epochs_count_those_of_the_runs_that_a_run_goes_on_from(runs):
    assert {name: run.epochs for name, run in runs.items()} == {
        "dense0": 10,
        **dict.fromkeys(("control", "upop", "mask", "upop_2"), 20),
    }


def test_the_control_has_as_much_training_and_is_not_the_model_before(runs):
    every = list(runs.values())
    assert control_of(runs["upop"], every) is runs["control"]
    assert control_of(runs["control"], every) is runs["control"]
    assert control_of(runs["upop"], [run for run in every if run.name != "control"]) is None


def test_a_control_of_the_same_seed_comes_first(study, tmp_path):
    folders = [*study.iterdir(), finish_slim_run(tmp_path / "seed2", 60.0, training=20, seed=2)]
    found = {run.name: run for run in read_slim_runs(folders)[0]}
    assert control_of(found["upop_2"], list(found.values())) is found["seed2"]
    assert control_of(found["upop"], list(found.values())) is found["control"]


@pytest.mark.parametrize("change", [{"task": "segment"}, {"parameters": {"dense": 3_000_000, "now": 3_000_000}}])
def test_a_run_of_another_task_or_model_is_no_control(runs, tmp_path, change):
    (other,), _ = read_slim_runs([finish_slim_run(tmp_path / "other", 99.0, training=20, **change)])
    assert control_of(runs["upop"], [other]) is None


def test_two_runs_that_begin_with_each_other_end(tmp_path):
    finish_slim_run(tmp_path / "a", 1.0, initial="runs/b")
    finish_slim_run(tmp_path / "b", 1.0, initial="runs/a")
    assert [run.epochs for run in read_slim_runs([tmp_path / "a", tmp_path / "b"])[0]] == [20, 20]


@pytest.mark.parametrize(
    "damage",
    [
        {"scores": {"accuracy": float("nan")}},
        {"scores": {}},
        {"parameters": {"dense": 0, "now": 0}},
        {"widths": {"a.0": {"part": "vision", "size": 4, "width": 5}}},
        {"macs": [1, 2]},
        {"baselines": 3},
        {"macs": {"dense": 5, "now": 0}},
    ],
)
def test_damaged_results_are_left_out_with_the_reason(tmp_path, damage):
    good = finish_slim_run(tmp_path / "good", 1.0)
    bad = finish_slim_run(tmp_path / "bad", 1.0, **damage)
    found, (note,) = read_slim_runs([good, bad])
    assert [run.name for run in found] == ["good"]
    assert note.startswith(f"{bad}: left out, damaged")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("latency.json", "ratio", -1.5),
        ("latency.json", "ratio", float("inf")),
        ("latency.json", "ratio", [2]),
        ("recipe.json", "task", "../../elsewhere"),
        ("recipe.json", "task", ["classify"]),
        ("recipe.json", "training", 3),
    ],
)
def test_damaged_files_are_left_out_too(tmp_path, file, key, value):
    good = finish_slim_run(tmp_path / "good", 1.0)
    bad = finish_slim_run(tmp_path / "bad", 1.0, latency=1.5)
    (bad / file).write_text(json.dumps({**json.loads((bad / file).read_text()), key: value}))
    found, (note,) = read_slim_runs([good, bad])
    assert [run.name for run in found] == ["good"]
    assert note.startswith(f"{bad}: left out, damaged")


def test_nothing_finished_is_an_error(tmp_path):
    folder = finish_slim_run(tmp_path / "run", 1.0)
    (folder / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"no finished run.*not finished"):
        read_slim_runs([folder])


# Tables


def test_a_row_compares_with_the_dense_control(runs):
    row = csv_row(runs["upop"], list(runs.values()), "laconic study x.toml")
    assert tuple(row) == COLUMNS
    assert (row["task"], row["method"], row["ratio"], row["metric"]) == ("classification", "upop", 0.5, "accuracy")
    assert (row["value"], row["dense"], row["baseline"]) == ("74.0000", "75.0000", "5.9000")
    assert (row["parameters"], row["macs"]) == (1_000_000, 250_000_000)
    assert (row["parameters_ratio"], row["macs_ratio"], row["latency_ratio"]) == ("2.0000", "2.0000", "1.6000")
    assert (row["seed"], row["command"]) == (1, "laconic study x.toml")


def test_what_is_not_known_stays_empty(runs):
    row = csv_row(runs["upop"], [runs["upop"]], "")
    assert (row["dense"], row["command"]) == ("", "")
    assert csv_row(runs["control"], list(runs.values()), "")["latency_ratio"] == ""


def test_the_table_of_a_task(runs):
    lines = task_table(list(runs.values())).splitlines()
    names = [line.split(" | ")[0].strip("| ") for line in lines[2:]]
    assert names == ["dense0", "control", "upop", "upop_2", "mask"]
    upop = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert upop == ["upop", "upop", "50 %", "20", "74.00", "98.7 %", "148.00", "1 M (50 %)", "0.25 G (50 %)", "62 %"]


def test_seeds_are_summed_up_where_there_are_several(runs):
    assert "| upop | 50 % | 20 | 2 | 73.50 | 73.00 | 74.00 |" in seeds_table(list(runs.values()))
    assert seeds_table([runs["upop"], runs["mask"]]) == ""


# Maps of widths


def groups(*rows):
    return [SlimGroup(name, part, size, width) for name, part, size, width in rows]


def test_a_map_has_a_row_for_each_part_and_a_column_for_each_layer():
    found = width_map(
        groups(
            ("encoder.layers.0.attention", "vision attention", 4, 1),
            ("encoder.layers.0.mlp", "vision feed-forward", 8, 8),
            ("encoder.layers.1.attention", "vision attention", 4, 0),
            ("decoder.layers.0.attention", "decoder attention", 4, 3),
        )
    )
    assert found.parts == ("vision attention", "vision feed-forward", "decoder attention")
    np.testing.assert_array_equal(found.kept, [[0.25, 0], [1, np.nan], [0.75, np.nan]])


def test_two_modules_of_a_part_in_one_layer_have_a_row_each():
    found = width_map(
        groups(*((f"layer.{i}.crossattention.self{n}", "text cross", 4, i + n) for i in (0, 1) for n in (0, 1)))
    )
    assert found.parts == ("text cross 1", "text cross 2")
    np.testing.assert_array_equal(found.kept, [[0, 0.25], [0.25, 0.5]])


def test_modules_without_a_number_stand_one_after_another():
    found = width_map(groups(*((f"{name}.attention", "decoder", 4, width) for width, name in enumerate("abc", 1))))
    np.testing.assert_array_equal(found.kept, [[0.25, 0.5, 0.75]])


def test_what_is_left_is_never_shown_as_nothing():
    assert [percent_kept(share) for share in (0, 0.001, 0.014, 1)] == ["0", "<1", "1", "100"]


# Whole reports


@pytest.fixture(scope="module")
def report(study, tmp_path_factory):
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("report") / "slim"
    return out, write_report([study], out, lambda run: f"laconic train {run.name}.toml")


def test_a_report_of_slim_models_alone(report):
    out, (first, *notes) = report
    assert first == f"{out}: 5 runs of slim models, slim.csv, README.md, figures"
    assert notes == []
    assert not (out / "runs.csv").exists()
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO((out / "slim.csv").read_text()))}
    assert rows["mask"]["command"] == "laconic train mask.toml"
    text = (out / "README.md").read_text()
    assert "## Slim models: classification" in text
    assert "Without looking, accuracy is 1.00 (chance) and 5.90 (no image)." in text
    shown = [path.name for path in sorted((out / "figures").iterdir())]
    assert shown == ["slim_classification_costs.png", "slim_classification_widths_1.png"]
    assert all(f"(figures/{name})" in text for name in shown)


def test_equal_runs_give_equal_bytes(report, study, tmp_path):
    write_report([study], tmp_path / "again", lambda run: f"laconic train {run.name}.toml")
    files = [path.relative_to(report[0]) for path in report[0].rglob("*") if path.is_file()]
    assert len(files) == 4
    assert all((report[0] / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_what_is_missing_is_said(tmp_path):
    pytest.importorskip("matplotlib")
    finish_slim_run(tmp_path / "runs" / "upop", 70.0, method="upop", search=1)
    _, *notes = write_report([tmp_path / "runs"], tmp_path / "out", lambda _: "")
    assert notes == [
        "share of dense of upop (classification): no dense run with 11 epochs of training",
        "latency of upop (classification): not measured; benchmarks/upop.py measures it",
    ]


@pytest.mark.slow
def test_captioners_and_slim_models_share_a_report(tmp_path):
    pytest.importorskip("matplotlib")
    finish_run(tmp_path / "runs" / "captioner", 0.5)
    finish_slim_run(tmp_path / "runs" / "control", 75.0)
    first, *_ = write_report([tmp_path / "runs"], tmp_path / "out", lambda _: "", gallery=False)
    assert first == f"{tmp_path / 'out'}: 1 runs, runs.csv, 1 runs of slim models, slim.csv, README.md, figures"
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.index("## Results") < text.index("## Slim models: classification")


def test_a_recipe_that_is_no_table_is_no_slim_run(tmp_path):
    (tmp_path / "runs" / "odd").mkdir(parents=True)
    (tmp_path / "runs" / "odd" / "recipe.json").write_text(json.dumps(["task"]))
    pytest.importorskip("matplotlib")
    with pytest.raises(ConfigError, match="no finished run"):
        write_report([tmp_path / "runs"], tmp_path / "out", lambda _: "")
