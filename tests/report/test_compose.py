"""Whole reports: every file of them, equal bytes for equal runs, and lines for what is left out."""

import csv
import io
import json
import re
import shutil
import struct
import sys

import numpy as np
import pytest

from laconic.cli import main
from laconic.errors import ConfigError, MissingError
from laconic.report.compose import write_report
from laconic.report.drawing import drawing, readable
from laconic.report.figures import (
    best_by_sparsity,
    cider_figure,
    kept_by_layer,
    non_zero_weights,
    progression_figure,
    smooth,
    spread,
)
from laconic.report.keeping import keep
from laconic.report.runs import read_runs

from .conftest import finish_run

pytest.importorskip("matplotlib")

FIGURES = ("cider_1.png", "layers_1.png", "training_1.png", "weights_1.png")


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    """Folder and lines of a report of all runs."""
    out = tmp_path_factory.mktemp("report") / "deep" / "er"
    return out, write_report([runs], out, lambda run: f"laconic train {run.name}.toml")


@pytest.fixture
def undrawn(monkeypatch):
    """For what is not about figures: they take most of a report's time, and none is made."""
    for name in ("cider_figure", "progression_figure", "layers_figure", "densities_figure"):
        monkeypatch.setattr(f"laconic.report.figures.{name}", lambda *_: None)
    monkeypatch.setattr("laconic.report.compose.write_figure", lambda *_: None)


def test_csv_has_every_run_and_number(report, runs):
    with (report[0] / "runs.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        *("dense", "smp_0.8", "smp_0.95", "smp_m1"),
        *("gradual_0.8", "gradual_0.95", "lottery_0.8", "lottery_0.95", "small"),
    ]
    row, result = rows["smp_0.95"], json.loads((runs / "smp_0.95" / "result.json").read_text())
    assert (row["method"], row["sparsity"], row["pruned_part"], row["dense_run"]) == ("SMP", "0.95", "decoder", "dense")
    assert (row["CIDEr"], row["Bleu_4"], row["METEOR"], row["share_of_dense"]) == ("48.0000", "16.0000", "", "0.9600")
    assert row["decoder_non_zeros"] == str(result["non_zeros"]["decoder"])
    assert row["bytes"] == str((runs / "smp_0.95" / "model.safetensors").stat().st_size)
    assert row["command"] == "laconic train smp_0.95.toml"
    assert (row["novel_share"], row["distinct_share"], row["training_seconds"]) == ("1.0000", "1.0000", "90.0")
    assert rows["smp_0.95"]["encoder_operations"] == rows["dense"]["encoder_operations"]
    assert 0 < int(row["decoder_operations"]) < 0.2 * int(rows["dense"]["decoder_operations"])


def test_captioners_of_one_name_and_two_sizes_are_told_apart(runs, tmp_path, undrawn):
    small = finish_run(tmp_path / "small_smp", 0.39, hidden=6, method="supermask", sparsity=0.8)
    folders = [small, *(runs / name for name in ("small", "dense", "smp_0.8"))]
    write_report(folders, tmp_path / "out", lambda run: "")
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["dense", "smp_0.8", "small", "small_smp"]
    headings = re.findall(
        r"## soft attention.*, ([\d,]+) weights; decoder", (tmp_path / "out" / "README.md").read_text()
    )
    assert headings == [f"{run.weights():,}" for run in read_runs([runs / "dense", runs / "small"])[0]]


def test_runs_of_two_budgets_are_compared_each_with_its_own_dense_run(runs, tmp_path, undrawn):
    for name in ("dense", "smp_0.8"):
        longer = shutil.copytree(runs / name, tmp_path / f"{name}_longer")
        recipe = json.loads((longer / "recipe.json").read_text())
        (longer / "recipe.json").write_text(json.dumps({**recipe, "training": {**recipe["training"], "epochs": 30}}))
    write_report([runs / "dense", runs / "smp_0.8", *tmp_path.iterdir()], tmp_path / "out", lambda run: "")
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        against = {row["run"]: row["dense_run"] for row in csv.DictReader(file)}
    assert (against["smp_0.8"], against["smp_0.8_longer"]) == ("dense", "dense_longer")
    text = (tmp_path / "out" / "README.md").read_text()
    assert re.findall(r"## soft attention.*, (\d+) epochs; decoder", text) == ["2", "30"]
    assert re.findall(r"figures/cider_\d", text) == ["figures/cider_1", "figures/cider_2"]


def test_runs_that_go_on_from_others_have_the_epochs_of_both(runs, tmp_path, undrawn):
    def copied(name: str, epochs: int, initial: str = "") -> None:
        run = shutil.copytree(runs / name.split("-")[0], tmp_path / name)
        recipe = json.loads((run / "recipe.json").read_text())
        more = {"training": {**recipe["training"], "epochs": epochs}, "initial": initial}
        (run / "recipe.json").write_text(json.dumps({**recipe, **more}))

    copied("dense", 6)
    copied("dense-short", 4)
    copied("smp_0.8", 6)
    copied("gradual_0.8", 2, "elsewhere/dense-short/model.safetensors")
    copied("gradual_0.95", 2, "elsewhere/gradual_0.95/model.safetensors")  # itself
    found = {run.name: run for run in read_runs([tmp_path])[0]}
    assert [found[name].budget for name in ("smp_0.8", "gradual_0.8", "gradual_0.95")] == [6, 6, 2]
    shutil.rmtree(tmp_path / "gradual_0.95")
    write_report([tmp_path], tmp_path / "out", lambda run: "")
    text = (tmp_path / "out" / "README.md").read_text()
    assert re.findall(r"## (soft attention.*); decoder", text) == ["soft attention on toy, scenes"]
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        assert {row["dense_run"] for row in csv.DictReader(file) if row["method"] != "dense"} == {"dense"}
    (tmp_path / "dense-short" / "recipe.json").write_text("[]")
    assert {run.name: run.budget for run in read_runs([tmp_path])[0]}["gradual_0.8"] == 2


def test_runs_of_two_seeds_are_compared_in_pairs_and_as_means(tmp_path, undrawn):
    ciders = {("dense", 1): 0.50, ("dense", 2): 0.54, ("smp", 1): 0.49, ("smp", 2): 0.50}
    for (kind, seed), cider in ciders.items():
        pruning = {"method": "supermask", "sparsity": 0.8} if kind == "smp" else {}
        run = finish_run(tmp_path / f"{kind}_{seed}", cider, **pruning)
        recipe = json.loads((run / "recipe.json").read_text())
        (run / "recipe.json").write_text(json.dumps({**recipe, "training": {**recipe["training"], "seed": seed}}))
    write_report([tmp_path], tmp_path / "out", lambda run: "")
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert [(row["seed"], row["dense_run"]) for row in rows.values()] == [
        *(("1", "dense_1"), ("2", "dense_2"), ("1", "dense_1"), ("2", "dense_2"))
    ]
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| dense_1, dense_2 | dense | 0 % | 52.0 | 50.0 | 54.0 | 100.0 % |" in text
    assert "| smp_1, smp_2 | SMP | 80 % | 49.5 | 49.0 | 50.0 | 95.2 % |" in text
    assert "training.seed" not in text  # no ablation
    assert "With photos: [gallery_1.html](gallery_1.html), dense_2 and smp_2." in text


def test_kept_runs_give_the_same_tables_and_figures_but_that_of_the_weights(report, runs, tmp_path):
    for run in runs.iterdir():
        keep(run, tmp_path / "kept" / run.name, captions=run.name == "dense")
    assert not (tmp_path / "kept" / "smp_m1" / "captions.json.gz").exists()
    lines = write_report([tmp_path / "kept"], tmp_path / "out", lambda run: f"laconic train {run.name}.toml")
    assert (tmp_path / "out" / "runs.csv").read_bytes() == (report[0] / "runs.csv").read_bytes()
    made = sorted(path.name for path in (tmp_path / "out" / "figures").iterdir())
    assert made == [name for name in FIGURES if not name.startswith("weights")]
    for name in made:
        assert (tmp_path / "out/figures" / name).read_bytes() == (report[0] / "figures" / name).read_bytes()
    assert sum(line.startswith("weights of ") for line in lines) == 4
    assert any(re.match(r"gallery of .*: the captions of smp_0.95 were not kept", line) for line in lines)
    assert not list((tmp_path / "out").glob("*.html"))


def test_older_runs_tell_what_captions_are_like_by_their_captions_alone(runs, tmp_path, undrawn):
    for name, captions in (("old", "captions.json"), ("mute", "")):
        run = shutil.copytree(runs / "dense", tmp_path / name)
        result = json.loads((run / "result.json").read_text())
        for key in ("quality", "operations", "matrices"):
            del result[key]
        (run / "result.json").write_text(json.dumps(result))
        if not captions:
            (run / "captions.json").unlink()
    lines = write_report([tmp_path / "old", tmp_path / "mute"], tmp_path / "out", lambda run: "")
    with (tmp_path / "out" / "runs.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert (rows["old"]["novel_share"], rows["old"]["mean_words"], rows["mute"]["mean_words"]) == ("1.0000", "7.00", "")
    assert rows["old"]["decoder_operations"] == ""
    assert "captions of mute: neither they nor what they are like was kept" in lines
    assert any(line.startswith("operations of old: ") for line in lines)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| old | 100.0 % |" in text
    assert "| mute | 100.0 % |" not in text


@pytest.mark.parametrize("name", ["README.md", "runs.csv", "notes.txt"])
def test_a_folder_of_something_else_is_left_alone(name, runs, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="holds something else than a report"):
        write_report([runs / "dense"], tmp_path, lambda _: "")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_report_is_written_over_itself_also_after_an_interruption(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("laconic.report.compose.write_figure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_report([runs / "dense", runs / "smp_0.8"], out, lambda _: "")
    for _ in range(2):
        write_report([runs / "dense"], out, lambda _: "")
    assert "| dense | dense |" in (out / "README.md").read_text()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_alpha_in_the_figure_is_that_of_the_training(runs):
    from laconic.compress.masked.supermask import anneal

    (run,), _ = read_runs([runs / "smp_0.95"])
    line = progression_figure([run]).axes[5].lines[0]
    assert line.get_ydata() == pytest.approx([anneal(int(step), 200) for step in line.get_xdata()])


def test_figures_are_pngs_of_one_width(report):
    out, _ = report
    assert sorted(path.name for path in (out / "figures").iterdir()) == list(FIGURES)
    for name in FIGURES:
        head = (out / "figures" / name).read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">I", head[16:20]) == (1440,)


def test_the_text_shows_tables_figures_ablations_and_captions(report):
    text = (report[0] / "README.md").read_text()
    for name in FIGURES:
        assert f"](figures/{name})" in text
    assert "| smp_0.95 | SMP | 95 % | 48.0 | 96.0 % | 16.0 | 24.0 |" in text
    (ablation,) = re.findall(r"\| pruning\.options\.(\w+) \|.*\n.*\n((?:\|.*\n)+)", text)
    assert ablation[0] == "init"
    assert [line.split(" | ")[:2] for line in ablation[1].splitlines()] == [["| 1.0", "smp_m1"], ["| 5.0", "smp_0.95"]]
    assert "| dense | 100.0 % | 100.0 % |" in text  # new and different captions
    assert "- smp_0.95: a red ring and 0 of <b>" in text
    page = (report[0] / "gallery_1.html").read_text()
    assert page.count("<figure>") == 6
    assert "&lt;b&gt;" in page
    assert "Left out" not in text
    assert len(report[1]) == 1


def test_without_its_gallery_a_report_holds_nothing_of_the_data_set(report, runs, tmp_path, undrawn):
    write_report([runs], tmp_path / "out", lambda run: f"laconic train {run.name}.toml", gallery=False)
    assert not list((tmp_path / "out").glob("*.html"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "*reference*" in (report[0] / "README.md").read_text()
    assert "*reference*" not in text
    assert "gallery" not in text.lower()


def test_equal_runs_give_equal_bytes(report, runs, tmp_path):
    shutil.copytree(runs, tmp_path / "copy")
    write_report([tmp_path / "copy"], tmp_path / "again", lambda run: f"laconic train {run.name}.toml")
    for path in report[0].rglob("*.*"):
        again = (tmp_path / "again" / path.relative_to(report[0])).read_bytes()
        assert again.replace(bytes(tmp_path / "copy"), bytes(runs)) == path.read_bytes(), path.name


def test_what_is_absent_is_left_out_and_said(runs, tmp_path):
    shutil.copytree(runs / "gradual_0.8", tmp_path / "gradual")
    recipe = json.loads((tmp_path / "gradual" / "recipe.json").read_text())
    recipe["data"] |= {"name": "coco", "root": "/nowhere"}
    (tmp_path / "gradual" / "recipe.json").write_text(json.dumps(recipe))
    result = json.loads((tmp_path / "gradual" / "result.json").read_text())
    del result["quality"]
    (tmp_path / "gradual" / "result.json").write_text(json.dumps(result))
    lines = "\n".join(write_report([tmp_path / "gradual"], tmp_path / "out", lambda _: ""))
    for what in (
        "share of dense of gradual: no dense run",
        "photos and training captions of gradual: /nowhere",
        "training progression of .*: no run with learned masks",
        "layers and weights of .*: fewer than two methods",
        "ablations: no two runs",
        "large and sparse against small and dense",
        "gallery of .*: no dense run",
    ):
        assert re.search(what, lines), what
    text = (tmp_path / "out" / "README.md").read_text()
    assert all(f"- {line}" in text for line in lines.splitlines()[1:])
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["cider_1.png"]


def test_a_single_sparsity_has_a_figure_of_some_width(runs):
    (run,), _ = read_runs([runs / "smp_0.95"])
    (axes,) = cider_figure([run], None, "one").axes
    count = run.non_zeros(["decoder"])
    assert axes.get_xlim() == (2 * count, count / 2)


def test_without_matplotlib_the_extra_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r"pip install \"laconic\[report\]\""):
        write_report([runs], tmp_path / "out", lambda _: "")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report([runs], tmp_path / "file" / "out", lambda _: "")


def test_the_verb_names_the_recipe_of_a_run(runs, tmp_path, capsys, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "broken.toml").write_text("[")
    (tmp_path / "recipes" / "tiny.toml").write_text(
        '[data]\nname = "scenes"\nmin_count = 1\ntrain = 30\nval = 6\n'
        '[encoder]\nname = "toy"\nsize = 32\n'
        "[decoder.options]\nword = 8\nhidden = 8\n[training]\nepochs = 2\n"
    )
    assert main(["report", str(runs / "dense"), str(runs / "small"), "-o", "out"]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "runs.csv").read_text())))
    assert [row["command"] for row in rows] == ["laconic train recipes/tiny.toml", ""]
    assert "out: 2 runs" in capsys.readouterr().out


# Parts of figures


def test_labels_move_apart_and_keep_their_order():
    values = [5.0, 1.0, 1.1, 1.2, 9.0]
    placed = spread(values, 1.0)
    assert np.diff(sorted(placed)).min() >= 1.0 - 1e-9
    assert np.argsort(placed).tolist() == np.argsort(values).tolist()
    assert (placed[0], placed[4]) == (5.0, 9.0)
    assert placed[1:4] == pytest.approx([0.1, 1.1, 2.1])
    assert spread([], 1.0) == []


def test_the_best_run_of_each_sparsity_makes_the_line(runs):
    found, _ = read_runs([runs])
    learned = [run for run in found if run.name.startswith("smp")]
    assert [run.name for run in best_by_sparsity(learned)] == ["smp_0.8", "smp_0.95"]


def test_layers_and_weights_are_those_of_the_file(runs):
    found = {run.name: run for run in read_runs([runs])[0]}
    run = found["smp_0.8"]
    kept = kept_by_layer(run)
    assert list(kept) == ["embedding", "initial", "key", "value", "query", "score", "gates", "output"]
    total = sum(t.non_zeros for t in run.matrices if t.name.startswith("decoder."))
    assert len(non_zero_weights(run, ("decoder",))) == total
    assert len(non_zero_weights(run, ("encoder", "decoder"))) == sum(t.non_zeros for t in run.matrices)


def test_smoothing_is_a_mean_over_what_there_is():
    assert smooth(np.arange(5.0), 3).tolist() == [0.5, 1.0, 2.0, 3.0, 3.5]
    assert smooth(np.ones(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("count", "text"), [(343_963, "344 k"), (6_792_411, "6.79 M"), (12, "12")])
def test_readable_counts(count, text):
    assert readable(count) == text


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    with drawing():
        assert mpl.rcParams["font.size"] == 9
    assert mpl.rcParams["font.size"] == before
