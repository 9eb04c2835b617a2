"""The README's numbers are those of the committed CSV files, and its commands and files exist."""

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")


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
    pruned = [row for row in rows("train_step.csv") if row["step"] == "smp"]
    found = {row["precision"]: row for row in pruned if row["captioner"] == "soft_attention"}
    stated = re.search(r"costs ([\d.]+)x the time and ([\d.]+)x the memory", README)
    assert stated
    assert stated.groups() == (
        f"{float(found['bf16']['time_ratio']):.2f}",
        f"{float(found['bf16']['memory_ratio']):.2f}",
    )


def test_metric_speed():
    ratios = {row["what"]: float(row["ratio"]) for row in rows("metrics_speed.csv")}
    stated = re.search(r"is (\d+)x as fast as pycocoevalcap's .*?, (\d+)x", README)
    assert stated
    prepared, whole = ratios["CIDEr, references prepared"], ratios["CIDEr, from tokens"]
    assert stated.groups() == (f"{prepared:.0f}", f"{whole:.0f}")


def test_files_it_names_exist():
    named = re.findall(r"`((?:docs|recipes|results|benchmarks)/[\w./]+)`", README)
    named += re.findall(r"recipes/\w+\.toml", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    tree = re.findall(r"^  +(\w+\.py)", README, re.MULTILINE)
    assert [name for name in tree if not list((ROOT / "src" / "laconic").rglob(name))] == []
