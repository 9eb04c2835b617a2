"""The README's numbers are those of the committed CSV files, and its commands and files exist."""

import csv
import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from laconic.recipes.folders import finished
from laconic.recipes.study import read_study
from laconic.report.runs import read_runs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")


STUDIES = [path.parent.name for path in sorted((ROOT / "results").glob("*/runs"))]


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "results" / name).open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def test_length():
    assert README.count("\n") <= 150


@pytest.mark.parametrize("row", rows("flickr8k.csv"), ids=lambda row: row["recipe"])
def test_result_table(row):
    name = row["name"]
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {name} |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        name,
        f"{float(row['CIDEr']):.1f}",
        f"{float(row['share_of_dense']):.1%}",
        f"{float(row['Bleu_4']):.1f}",
        f"{int(row['encoder_non_zeros']):,}",
        f"{int(row['decoder_non_zeros']):,}",
        *(
            f"{int(row[size]) / 1e6:.2f} MB (1/{int(row['float32_bytes']) / int(row[size]):.1f})"
            for size in ("half_bytes", "compact_bytes")
        ),
        f"{float(row['compact_CIDEr']):.1f}",
    ]


def test_recipe_time():
    stated = re.search(r"scored file 95 % took (\d+)\s+minutes", README)
    assert stated
    assert int(stated[1]) == round(sum(float(row["wall_seconds"]) for row in rows("flickr8k_timing.csv")) / 60)


def test_step_cost():
    found = {(row["captioner"], row["step"]): row for row in rows("train_step.csv") if row["precision"] == "bf16"}
    stated = re.search(
        r"costs ([\d.]+)x the time and ([\d.]+)x the memory .* 53 million weights ([\d.]+)x; "
        r"without a C compiler ([\d.]+)x and ([\d.]+)x:",
        " ".join(README.split()),
    )
    assert stated
    kinds = "smp", "smp without a C compiler"
    (here, wide), (plain, wide_plain) = (
        [f"{float(found[captioner, kind]['time_ratio']):.2f}" for captioner in ("soft_attention", "up_down")]
        for kind in kinds
    )
    for kind in kinds:
        memory = {f"{float(found[captioner, kind]['memory_ratio']):.2f}" for captioner in ("soft_attention", "up_down")}
        assert memory == {stated[2]}
    assert (stated[1], *stated.groups()[2:]) == (here, wide, plain, wide_plain)


def test_storage_of_the_published_checkpoint():
    found = {(row["values"], row["calibration"]): row for row in rows("storage.csv") if row["model"] == "TINY3"}
    half, compact = found["half", "none"], found["compact", "5 images"]
    stated = re.search(
        r"([\d,]+) bytes as published, takes ([\d,]+) in half precision and ([\d,]+) in `compact`, "
        r"with its greedy captions of all five sample images \(calibrated without one, of (\d of \d)\)",
        " ".join(README.split()),
    )
    assert stated
    assert half["captions_unchanged"] == compact["captions_unchanged"] == "5 of 5"
    assert stated.groups() == (
        *(f"{int(number):,}" for number in (half["paper_bytes"], half["bytes"], compact["bytes"])),
        compact["held_out_captions_unchanged"],
    )


def test_encoder_study():
    found = {row["run"]: row for row in rows("flickr8k_encoder.csv")}
    stated = re.search(
        r"(\d+) % of all weights pruned, CIDEr ([\d.]+), ([\d.]+) MB compact: ([\d.]+) % of the ([\d.]+) of a dense .* "
        r"With (\d+) % pruned, 80 % of the encoder's: ([\d.]+), and ([\d.]+) in a compact file of ([\d.]+) MB",
        " ".join(README.split()),
    )
    assert stated
    best, most = found["A2_smp"], found["A2_smp_91"]
    assert stated.groups() == (
        f"{100 * float(best['sparsity']):.0f}",
        f"{float(best['CIDEr']):.1f}",
        f"{int(best['compact_bytes']) / 1e6:.2f}",
        f"{100 * float(best['share_of_dense_tuned']):.1f}",
        f"{float(found['dense_tuned']['CIDEr']):.1f}",
        f"{100 * float(most['sparsity']):.0f}",
        f"{float(most['CIDEr']):.1f}",
        f"{float(most['compact_CIDEr']):.1f}",
        f"{int(most['compact_bytes']) / 1e6:.2f}",
    )
    assert 1 - int(most["encoder_non_zeros"]) / int(most["encoder_weights"]) == pytest.approx(0.8, abs=0.01)


METHODS = {
    "SMP": "smp",
    "gradual": "gradual",
    "lottery ticket (gradual)": "lottery",
    "hard, class-uniform": "hard_uniform",
    "hard, class-blind": "hard_blind",
    "SNIP": "snip",
}


def test_methods_compared():
    kept, _ = read_runs([ROOT / "results" / "flickr8k_methods" / "runs"])
    found = {run.name: 100 * run.cider for run in kept}
    for row in rows("flickr8k_methods/runs.csv"):
        assert row["CIDEr"] == f"{found[row['run']]:.2f}"
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:1] == "|"]
    lines = {cells[0]: cells[1:] for cells in table if len(cells) == 4}
    sparsities = ("0.8", "0.95", "0.975")
    for shown, method in METHODS.items():
        assert lines[shown] == [f"{found[f'{method}_{sparsity}']:.1f}" for sparsity in sparsities], shown
    first = [max((found[f"{method}_{sparsity}"], method) for method in METHODS.values())[1] for sparsity in sparsities]
    assert first == ["lottery", "smp", "smp"]
    text = " ".join(README.split())
    assert "SMP is first at 95 and 97.5 %; at 80 % the lottery ticket is" in text
    assert f"the dense captioner has {found['dense']:.1f}" in text


def test_captioners_pruned():
    found = {row["run"]: row for row in rows("flickr8k_captioners/runs.csv")}
    text = " ".join(README.split())
    stated = re.search(
        r"in (\d+) and (\d+) epochs: CIDEr ([\d.]+) of ([\d.]+) \(([\d.]+) %; two seeds, ([\d.]+) and ([\d.]+) %\) "
        r"and ([\d.]+) of ([\d.]+) \(([\d.]+) %; one run each\).* own (\d+) epochs .* "
        r"it makes ([\d.]+) of other dense ones \(two seeds\), of which theirs are ([\d.]+) %\.",
        text,
    )
    assert stated
    distilled = [
        dense_and_pruned(f"up_down_1000_dense{seed}", f"up_down_1000_smp95_distilled{seed}", found)
        for seed in ("", "_seed2")
    ]
    alone = dense_and_pruned("object_relation_dense", "object_relation_smp95", found)
    epochs = [found[name]["epochs"] for name in ("up_down_1000_smp95_distilled", "object_relation_smp95")]
    assert list(stated.groups()[:2]) == epochs
    dense, pruned = (fmean(ciders) for ciders in zip(*distilled, strict=True))
    expected = [pruned, dense, 100 * pruned / dense, *(100 * ours / whole for whole, ours in distilled)]
    expected += [alone[1], alone[0], 100 * alone[1] / alone[0]]
    assert list(stated.groups()[2:10]) == [f"{number:.1f}" for number in expected]
    assert stated[11] == found["up_down_1000_dense_seed2"]["epochs"]
    taught = [
        dense_and_pruned(f"up_down_1000_dense{s}", f"up_down_1000_dense_distilled{s}", found) for s in ("", "_seed2")
    ]
    also_taught = fmean(cider for _, cider in taught)
    assert stated.groups()[11:] == (f"{also_taught:.1f}", f"{100 * pruned / also_taught:.1f}")


def test_captioners_pruned_without_a_teacher():
    found = {row["run"]: row for row in rows("flickr8k_captioners/runs.csv")}
    stated = re.search(
        r"Without a teacher ([\d.]+) % are kept, with (\d+) epochs ([\d.]+) % \(two seeds\), "
        r"by a wider one ([\d.]+) %,",
        " ".join(README.split()),
    )
    assert stated
    kept = [found[f"up_down_{units}_smp95"] for units in (1000, 1400)]
    assert [stated[1], stated[4]] == [f"{100 * float(row['share_of_dense']):.1f}" for row in kept]
    longer = [
        dense_and_pruned(f"up_down_1000_dense_20epochs{seed}", f"up_down_1000_smp95_20epochs{seed}", found)
        for seed in ("", "_seed2")
    ]
    dense, pruned = (fmean(ciders) for ciders in zip(*longer, strict=True))
    assert (stated[2], stated[3]) == (found["up_down_1000_smp95_20epochs"]["epochs"], f"{100 * pruned / dense:.1f}")


def test_soft_attention_with_a_teacher():
    found = {row["run"]: row for row in rows("flickr8k_distillation/runs.csv")}
    pattern = r"at 95 %, taught so: ([\d.]+) of ([\d.]+) in (\d+) epochs, not (\d+) \("
    stated = re.search(pattern, " ".join(README.split()))
    assert stated
    dense, pruned = found["dense"], found["smp95_distilled"]
    assert stated.groups()[:2] == (f"{float(pruned['CIDEr']):.1f}", f"{float(dense['CIDEr']):.1f}")
    longer = next(row for row in rows("flickr8k.csv") if row["recipe"] == "flickr8k_smp95")
    assert {dense["epochs"], pruned["epochs"]} == {stated[3]}
    assert stated[4] == longer["epochs"]
    assert float(pruned["share_of_dense"]) == pytest.approx(float(longer["share_of_dense"]), abs=0.001)


def dense_and_pruned(dense: str, pruned: str, found: dict[str, dict[str, str]]) -> list[float]:
    """CIDEr of a pair of kept runs, to all digits; they are those of the table, and of one budget."""
    pair = [found[dense], found[pruned]]
    assert (pair[1]["dense_run"], pair[1]["epochs"]) == (pair[0]["run"], pair[0]["epochs"])
    results = (ROOT / "results/flickr8k_captioners/runs" / row["run"] / "result.json" for row in pair)
    ciders = [100 * json.loads(path.read_text(encoding="utf8"))["scores"]["CIDEr"] for path in results]
    assert [f"{cider:.2f}" for cider in ciders] == [row["CIDEr"] for row in pair]
    return ciders


def test_self_critical_training():
    found = {row["run"]: row for row in rows("flickr8k_scst.csv")}
    before, after = found["smp_0.95"], found["flickr8k_scst95"]
    stated = re.search(
        r"CIDEr from ([\d.]+) to ([\d.]+), BLEU-4 from ([\d.]+) to ([\d.]+), and no caption", " ".join(README.split())
    )
    assert stated
    assert stated.groups() == tuple(
        f"{float(row[score]):.1f}" for score in ("CIDEr", "Bleu_4") for row in (before, after)
    )
    assert float(after["broken_share"]) == 0


def test_metric_speed():
    ratios = {row["what"]: float(row["ratio"]) for row in rows("metrics_speed.csv")}
    stated = re.search(r"is (\d+)x as fast as pycocoevalcap's .*?, (\d+)x", README)
    assert stated
    prepared, whole = ratios["CIDEr, references prepared"], ratios["CIDEr, from tokens"]
    assert stated.groups() == (f"{prepared:.0f}", f"{whole:.0f}")


@pytest.mark.parametrize("study", STUDIES)
def test_the_runs_that_are_kept_are_those_of_the_study(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / study
    shutil.copytree(ROOT / "results" / study / "runs", folder)
    planned = {run.name: run.recipe for run in read_study(ROOT / "recipes" / "studies" / f"{study}.toml", folder)}
    kept, notes = read_runs([folder])
    assert notes == []
    for run in kept:
        assert finished(folder / run.name, planned[run.name]) == run.result  # refuses other settings


def test_files_it_names_exist():
    named = re.findall(r"`((?:docs|recipes|results|benchmarks)/[\w./]+)`", README)
    named += re.findall(r"recipes/\w+\.toml", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    (tree,) = re.findall(r"^```\nsrc/laconic/\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    modules = re.findall(r"\b\w+\.(?:py|c)\b", tree)
    assert len(modules) > 30
    assert [name for name in modules if not list((ROOT / "src" / "laconic").rglob(name))] == []
