"""Run folders as a report reads them, and which runs belong together."""

import csv
import gzip
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from laconic.errors import ConfigError
from laconic.report.figures import best_by_sparsity
from laconic.report.files import write_compressed
from laconic.report.keeping import keep
from laconic.report.methods import STYLES, in_order, method_name, style_of
from laconic.report.runs import captioner_key, captioner_title, dense_counterpart, read_runs
from laconic.report.settings import DEFAULTS
from laconic.training.distillation import Distillation

SHORT = gzip.compress(b'[{"image_id": 1, "caption": "a dog"}]')[:-9]
WEIGHTLESS = [{"name": "decoder.output.weight", "shape": [0, 10], "non_zeros": 0}]


def by_name(folder):
    found, notes = read_runs([folder])
    assert notes == []
    return {run.name: run for run in found}


def test_runs_are_read_with_their_names_methods_and_numbers(runs):
    found = by_name(runs)
    assert {name: method_name(run) for name, run in found.items()} == {
        "dense": "dense",
        "small": "dense",
        "gradual_0.8": "gradual",
        "gradual_0.95": "gradual",
        "lottery_0.8": "lottery (gradual)",
        "lottery_0.95": "lottery (gradual)",
        "smp_0.8": "SMP",
        "smp_0.95": "SMP",
        "smp_m1": "SMP",
    }
    run = found["smp_0.95"]
    assert (run.sparsity, run.parts, run.cider, run.minutes) == (0.95, ("decoder",), 0.48, 1.5)
    assert run.non_zeros() == run.result["non_zeros"]["encoder"] + run.result["non_zeros"]["decoder"]
    assert run.curve("gate_mean")[0] == (20, 1.0)
    assert run.curve("CIDEr") == [(200, 0.48)]
    assert [t.name for t in run.matrices][-1] == "decoder.output.weight"


def test_a_run_is_compared_with_the_dense_run_of_its_own_captioner(runs):
    found = by_name(runs)
    every = list(found.values())
    assert dense_counterpart(found["smp_0.8"], every) is found["dense"]
    assert dense_counterpart(found["small"], every) is found["small"]
    assert dense_counterpart(found["smp_0.8"], [found["small"]]) is None


def test_every_run_is_compared_with_a_dense_one_that_had_no_teacher(runs, tmp_path):
    for name, source, distilled in (
        ("dense", "dense", False),
        ("dense_distilled", "smp_0.95", True),
        ("smp", "smp_0.8", False),
        ("smp_distilled", "smp_0.8", True),
    ):
        run = shutil.copytree(runs / source, tmp_path / name)
        recipe = json.loads((run / "recipe.json").read_text())
        recipe["distillation"]["teacher"] = "dense/model.safetensors" if distilled else ""
        if distilled:  # the loss is then half the teacher's
            lines = (run / "log.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            rows = [{**row, "cross_entropy": 2 * row["loss"]} if "loss" in row else row for row in rows]
            (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if name == "dense":
            del recipe["distillation"]  # as of an older version
        if name == "dense_distilled":
            recipe["pruning"] = json.loads((runs / "dense" / "recipe.json").read_text())["pruning"]
            result = json.loads((run / "result.json").read_text())
            result["scores"]["CIDEr"] = 0.6
            (run / "result.json").write_text(json.dumps(result))
        (run / "recipe.json").write_text(json.dumps(recipe))
    found = by_name(tmp_path)
    every = list(found.values())
    assert [method_name(run) for run in every] == ["dense", "dense, distilled", "SMP", "SMP, distilled"]
    assert found["smp_distilled"].loss == [(step, 2 * loss) for step, loss in found["smp"].loss]
    assert best_by_sparsity(every[2:]) == every[2:]
    assert {dense_counterpart(run, every).name for run in every} == {"dense"}
    assert dense_counterpart(found["smp"], every[1:]).name == "dense_distilled"  # where there is no other
    assert {"dense, distilled", "SMP, distilled"} <= set(STYLES)


def test_runs_are_compared_with_dense_ones_of_the_same_search(runs, tmp_path):
    for name, beam in (("dense", 3), ("dense_greedy", 1), ("smp_0.95", 3), ("smp_greedy", 1)):
        run = shutil.copytree(runs / name.replace("smp_greedy", "smp_0.95").split("_greedy")[0], tmp_path / name)
        recipe = json.loads((run / "recipe.json").read_text())
        if beam == 3:
            del recipe["decoding"]  # as of an older version
        else:
            recipe["decoding"]["beam"] = beam
        (run / "recipe.json").write_text(json.dumps(recipe))
    found = by_name(tmp_path)
    every = list(found.values())
    for name in ("", "_greedy"):
        assert dense_counterpart(found[f"smp{name or '_0.95'}"], every) is found[f"dense{name}"]
    assert dense_counterpart(found["smp_greedy"], [found["dense"]]) is None
    assert captioner_title(found["smp_greedy"], every).endswith(", beam 1")


def test_options_that_are_spelled_out_make_no_other_captioner(runs, tmp_path):
    run = shutil.copytree(runs / "smp_0.95", tmp_path / "smp")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["decoder"]["options"]["cell"] = "lstm"  # the default
    (run / "recipe.json").write_text(json.dumps(recipe))
    assert captioner_key(by_name(tmp_path)["smp"]) == captioner_key(by_name(runs)["smp_0.95"])


def test_frozen_masks_are_named_by_what_made_them(runs, tmp_path):
    for name in ("smp_0.95", "dense"):
        shutil.copytree(runs / name, tmp_path / name)
    shutil.copytree(runs / "smp_0.95", tmp_path / "tuned")
    recipe = json.loads((tmp_path / "tuned" / "recipe.json").read_text())
    recipe["pruning"] = {"method": "frozen"}
    recipe["initial"] = "somewhere/smp_0.95/model.safetensors"
    (tmp_path / "tuned" / "recipe.json").write_text(json.dumps(recipe))
    tuned = by_name(tmp_path)["tuned"]
    assert method_name(tuned) == "SMP"
    assert tuned.sparsity == pytest.approx(0.95, abs=0.02)  # drawn at random, counted in the file
    beside = tmp_path / "smp_0.95"
    for damaged in (
        "fast",
        {"method": "supermask", "options": "fast"},
        {"method": "supermask", "options": {"schedule": 3}},
    ):
        (beside / "recipe.json").write_text(json.dumps({**recipe, "pruning": damaged}))
        found, notes = read_runs([tmp_path])
        assert [method_name(run) for run in found if run.name == "tuned"] == ["frozen masks"]
        assert len(notes) == 1
    shutil.rmtree(beside)
    assert method_name(by_name(tmp_path)["tuned"]) == "frozen masks"


def test_runs_in_few_bits_say_so_and_are_compared_with_float_ones(runs, tmp_path):
    for name, table in {
        "dense": {},
        "dense_4": {"bits": 4},
        "smp_0.95": {"bits": 3, "parts": {"encoder": 8, "decoder.output": 0}},
        "smp_0.8": {"bits": 9},
    }.items():
        run = shutil.copytree(runs / name.removesuffix("_4"), tmp_path / name)
        recipe = json.loads((run / "recipe.json").read_text())
        (run / "recipe.json").write_text(json.dumps({**recipe, "quantization": table}))
    found, notes = read_runs([tmp_path])
    assert {run.name: method_name(run) for run in found} == {
        "dense": "dense",
        "dense_4": "dense, 4 bits",
        "smp_0.95": "SMP, 3 to 8 bits",
    }
    assert {run.name for run in found if run.is_dense} == {"dense"}
    assert dense_counterpart(found[1], found).name == "dense"
    assert (found[1].sparsity, style_of("dense, 4 bits")) == (0, STYLES["dense"])
    assert len(notes) == 1
    assert "smp_0.8: left out, damaged (ConfigError: quantization: bits = 9" in notes[0]


def test_what_is_left_out_is_said(runs, tmp_path):
    shutil.copytree(runs / "dense", tmp_path / "good")
    recipe, result = ((runs / "dense" / f"{name}.json").read_text() for name in ("recipe", "result"))
    for name, file, text in [
        ("unfinished", "result.json", None),
        ("cut", "recipe.json", "{"),
        ("list", "result.json", "[]"),
        ("nan", "result.json", result.replace("0.5}", "NaN}")),
        ("damaged", "result.json", result.replace('"matrices"', '"tensors"')),  # and its model is gone
        ("empty", "recipe.json", "{}"),
        ("endless", "recipe.json", recipe.replace('"epochs": 2', '"epochs": Infinity')),
        ("silent", "captions.json", "[]"),
        ("garbled", "captions.json", "[{}]"),
        ("short", "captions.json.gz", SHORT),
        ("vague", "result.json", result.replace('"mean_words"', '"words"')),
        ("blank", "result.json", result.replace('"mean_words": 7.0', '"mean_words": null')),
        ("wild", "result.json", result.replace('"mean_words": 7.0', '"mean_words": [7]')),
        ("scoreless", "result.json", result.replace('"Bleu_4"', '"Bleu"')),
        ("rootless", "recipe.json", recipe.replace('"root"', '"roots"')),
        ("timeless", "result.json", result.replace('"seconds"', '"hours"')),
        ("deep", "result.json", "[" * 100_000),
        ("wordy", "result.json", result.replace('"ROUGE_L": 0.25', '"ROUGE_L": "x"')),
        ("weightless", "result.json", json.dumps({**json.loads(result), "matrices": WEIGHTLESS})),
    ]:
        shutil.copytree(runs / "dense", tmp_path / name)
        if text is None:
            (tmp_path / name / file).unlink()
        elif isinstance(text, bytes):
            (tmp_path / name / file).write_bytes(text)
            (tmp_path / name / file.removesuffix(".gz")).unlink()
        else:
            (tmp_path / name / file).write_text(text)
    (tmp_path / "damaged" / "model.safetensors").write_text("x" * 99)
    (tmp_path / "no run").mkdir()
    found, notes = read_runs([tmp_path])
    assert [run.name for run in found] == ["good"]
    left_out = ["blank", "cut", "damaged", "deep", "empty", "endless", "garbled", "list", "nan"]
    left_out += ["rootless", "scoreless", "short", "silent", "timeless", "unfinished", "vague", "weightless"]
    left_out += ["wild", "wordy"]
    assert [note.split(":")[0].rsplit("/")[-1] for note in notes] == left_out
    said = dict(zip(left_out, notes, strict=True))
    assert "not finished (no result.json)" in said["unfinished"]
    assert "captions.json is empty" in said["silent"]
    assert "captions.json.gz: no captions can be read" in said["short"]


def test_compressed_files_are_read_and_those_that_unpack_to_too_much_are_not(runs, tmp_path, monkeypatch):
    run = shutil.copytree(runs / "smp_0.95", tmp_path / "smp")
    for name in ("log.jsonl", "captions.json"):
        write_compressed(run / f"{name}.gz", (run / name).read_text())
        (run / name).unlink()
    found, plain = by_name(tmp_path)["smp"], by_name(runs)["smp_0.95"]
    assert (found.log, found.captions) == (plain.log, plain.captions)
    write_compressed(run / "captions.json.gz", " " * (1 << 20) + "[]")
    monkeypatch.setattr("laconic.report.files.MAX_JSON", 1 << 20)
    with pytest.raises(ConfigError, match=r"captions.json.gz has more than 1048576 bytes"):
        read_runs([tmp_path])


def test_pruning_options_beside_the_method_and_in_a_table_of_their_own_are_the_same(runs, tmp_path):
    schedule = {"start": 10, "end": None, "interval": 5}
    flat = {"method": "gradual", "where": "all", "sparsity": 0.9, "scope": "uniform", **schedule}
    options = {"sparsity": 0.9, "scope": "uniform", "schedule": {"start": 10, "interval": 5}}
    forms = (flat, {"method": "gradual", "where": "all", "options": options})
    read = []
    for pruning in forms:
        run = shutil.copytree(runs / "smp_0.95", tmp_path / "run")
        recipe = json.loads((run / "recipe.json").read_text())
        (run / "recipe.json").write_text(json.dumps({**recipe, "pruning": pruning}))
        found = by_name(tmp_path)["run"]
        read.append((found.pruning, found.settings["pruning"], method_name(found), found.sparsity, found.parts))
        shutil.rmtree(run)
    assert read[0] == read[1]
    assert read[0][2:] == ("gradual, uniform", 0.9, ("encoder", "decoder"))
    assert read[0][1]["options"]["schedule"] == schedule


def test_defaults_of_recipes_that_lack_a_table_are_those_of_training():
    assert DEFAULTS["distillation"] == asdict(Distillation())


def test_what_is_kept_of_a_run_is_small_the_same_each_time_and_can_be_kept_again(runs, tmp_path):
    for out in ("one", "two"):
        keep(runs / "smp_0.95", tmp_path / out, captions=True)
    keep(tmp_path / "one", tmp_path / "three", captions=True)
    first = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert sorted(first) == ["captions.json.gz", "log.jsonl.gz", "recipe.json", "result.json"]
    for out in ("two", "three"):
        assert {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} == first
    found, plain = by_name(tmp_path)["one"], by_name(runs)["smp_0.95"]
    assert (found.recipe, found.result, found.log) == (plain.recipe, plain.result, plain.log)
    assert len(first["result.json"].splitlines()) == len(plain.result) + 2


def test_a_run_is_kept_only_with_what_its_captions_are_like(runs, tmp_path):
    run = shutil.copytree(runs / "dense", tmp_path / "old")
    result = json.loads((run / "result.json").read_text())
    quality = result.pop("quality")
    (run / "result.json").write_text(json.dumps(result))
    keep(run, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "result.json").read_text())["quality"] == quality
    (run / "captions.json").unlink()
    with pytest.raises(ConfigError, match="neither its captions nor what they are like"):
        keep(run, tmp_path / "again")
    with pytest.raises(ConfigError, match="its captions were not kept"):
        keep(tmp_path / "kept", tmp_path / "again", captions=True)
    assert not (tmp_path / "again").exists()


def test_what_is_no_number_in_a_log_is_passed_over(runs, tmp_path):
    run = shutil.copytree(runs / "smp_0.95", tmp_path / "smp")
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 220, "loss": null}\n{"step": 240, "loss": "low"}\n' + "[" * 100_000 + "\n")
    assert by_name(tmp_path)["smp"].curve("loss") == by_name(runs)["smp_0.95"].curve("loss")


def test_the_sparsity_is_that_of_all_pruned_parts_where_some_masks_are_frozen(runs, tmp_path):
    run = shutil.copytree(runs / "smp_0.95", tmp_path / "smp")
    recipe = json.loads((run / "recipe.json").read_text())
    pruning = {**recipe["pruning"], "where": "all", "freeze": "decoder", "sparsity": 0.5}
    (run / "recipe.json").write_text(json.dumps({**recipe, "pruning": pruning}))
    found = by_name(tmp_path)["smp"]
    whole = 1 - sum(t.non_zeros for t in found.matrices) / sum(t.weights for t in found.matrices)
    assert (found.parts, found.target) == (("encoder", "decoder"), 0.5)
    assert found.sparsity == pytest.approx(whole, abs=1e-4)
    assert found.sparsity < by_name(runs)["smp_0.95"].sparsity  # of the decoder; the encoder of this one keeps all


def test_older_recipes_lack_options_and_are_compared_all_the_same(runs, tmp_path):
    for name in ("dense", "smp_0.95", "smp_m1"):
        shutil.copytree(runs / name, tmp_path / name)
    path = tmp_path / "smp_0.95" / "recipe.json"
    recipe = json.loads(path.read_text())
    for table, key in (("data", "regions"), ("training", "schedule")):
        del recipe[table][key]
    recipe["pruning"] = {"method": "supermask", "sparsity": 0.95}
    path.write_text(json.dumps(recipe))
    found = by_name(tmp_path)
    old, new = found["smp_0.95"], found["smp_m1"]
    assert dense_counterpart(old, list(found.values())) is found["dense"]
    assert captioner_key(old) == captioner_key(new)
    assert old.pruning == {**new.pruning, "init": 5.0}


def test_runs_of_one_name_bear_their_folders_too(runs, tmp_path):
    for parent in "ab":
        shutil.copytree(runs / "dense", tmp_path / parent / "dense")
    found, _ = read_runs([tmp_path / "a", tmp_path / "b" / "dense", tmp_path / "a" / "dense"])
    assert [run.name for run in found] == ["a/dense", "b/dense"]
    for parent in ("x/runs", "y/runs"):
        shutil.copytree(runs / "dense", tmp_path / parent / "dense")
    found, _ = read_runs([tmp_path / "x" / "runs", tmp_path / "y" / "runs", tmp_path / "a"])
    assert [run.name for run in found] == ["a/dense", "x/runs/dense", "y/runs/dense"]


def test_a_study_gives_its_command_to_its_own_runs(runs, tmp_path):
    for name in ("dense", "small"):
        shutil.copytree(runs / name, tmp_path / name)
    (tmp_path / "study.json").write_text('{"command": "laconic study x.toml", "runs": ["dense"]}')
    found = by_name(tmp_path)
    assert (found["dense"].study_command, found["small"].study_command) == ("laconic study x.toml", "")


def test_no_runs_at_all(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no run in it"):
        read_runs([tmp_path])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "recipe.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no finished run in .*; .*left out, not finished"):
        read_runs([tmp_path])


def test_every_method_has_a_colour_and_a_place():
    assert len({style.colour for style in STYLES.values()}) == len(STYLES)
    marks = {(style.colour, style.marker) for style in STYLES.values()}
    assert len(marks) == len(STYLES)
    assert style_of("hard, distribution, of a kind") == STYLES["hard, distribution"]
    assert style_of("gradual, other") == STYLES["gradual"]
    assert style_of("something new").colour not in {style.colour for style in STYLES.values()}
    assert in_order(["lottery (blind)", "new", "SMP", "dense", "SMP"]) == ["dense", "SMP", "lottery (blind)", "new"]


@pytest.mark.parametrize("study", ["flickr8k_methods", "flickr8k_captioners", "flickr8k_distillation"])
def test_kept_runs_are_compared_as_their_tables_say(study):
    results = Path(__file__).parents[2] / "results" / study
    kept = by_name(results / "runs")
    with (results / "runs.csv").open(newline="", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    every = list(kept.values())
    assert sorted(row["run"] for row in rows) == sorted(kept)
    for row in rows:
        run = kept[row["run"]]
        dense = run if run.is_dense and not run.distilled else dense_counterpart(run, every)
        assert dense is not None
        shown = method_name(run), f"{100 * run.cider:.4f}", dense.name, f"{run.cider / dense.cider:.4f}"
        assert (row["method"], row["CIDEr"], row["dense_run"], row["share_of_dense"]) == shown
    headings = re.findall(r"## (.*); decoder pruned", (results / "README.md").read_text(encoding="utf8"))
    assert set(headings) == {captioner_title(run, every) for run in every if not run.is_dense}
