"""Whole captioners, encoder included, by the bytes of their files: a table in results, and of the frontier a figure.

    python benchmarks/frontier.py runs/flickr8k_frontier
    python benchmarks/frontier.py runs/flickr8k_whole

The study names the table: results/frontier.csv, results/whole.csv, results/regions.csv. Packs each finished run of it:
one trained in few bits as it was trained, any other in half precision and in calibrated compact form. Every row is such
a file, captioned from raw photos of the validation split and scored; what has been scored before is not scored again,
and rows of runs that are not in the folder stay as they are. Each captioner is compared with the dense one that it was
made from, and where its training was self-critical, with a dense one whose training was so, too. A dense captioner on
an encoder that is small already is no such measure: in its place stands one of equal training on the whole encoder,
from another study (CONTROLS).
"""

import argparse
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import laconic
from laconic import data, metrics, store
from laconic.captioner.captioning import evaluate
from laconic.cli import main
from laconic.config import expand
from laconic.machine.files import write_text
from laconic.recipes.folders import read_recipe, write_json
from laconic.recipes.recipe import Recipe
from laconic.report.drawing import drawing, write_figure
from laconic.report.frontier import Point, frontier_figure
from laconic.spec.encoders import detects
from laconic.spec.manifest import MODEL, RESULT, STUDY

PUBLISHED = (  # of COCO; the second score is of each paper's own dense captioner, trained in the same way
    Point("SMP Up-Down 99.1 %, COCO, without its encoder", 8.7e6, 120.1, 125.9),
    Point("Atliha and Sesok, AoANet, COCO", 34.8e6, 127.4, 129.8),
    Point("ACORT-small in half precision, COCO, without its encoder", 8.4e6, 126.9, 130.3),
)

FRONTIER = "frontier"
WHOLE_UP_DOWN = ("flickr8k_captioners", "up_down_dense")
CONTROLS = {  # of runs with the encoder of a small file: a run on the whole one, of another study where one is named
    "on_tiny": WHOLE_UP_DOWN,
    "tiny_smaller": WHOLE_UP_DOWN,
    "tiny_smallest": WHOLE_UP_DOWN,
    "on_tiny_aoanet": ("", "v2_aoanet"),
}


def rows_of(folder: Path, study: str, dense: dict[str, float]) -> Iterator[dict[str, Any]]:
    """A row for each file of a finished run. `dense`: CIDEr of the dense runs before it, by name; it joins them."""
    recipe, result = read_recipe(folder), json.loads((folder / RESULT).read_text(encoding="utf8"))
    assert isinstance(recipe, Recipe)
    counts = result["non_zeros"]
    weights = counts["encoder_weights"] + counts["decoder_weights"]
    trained = bool(recipe.quantization.table)
    for values in ("trained",) if trained else ("half", "compact"):
        scores = scored(folder, recipe, values)
        cider = round(100 * scores["CIDEr"], 2)
        whole = recipe.pruning.method == "none" and not trained and not recipe.encoder_from
        if whole and values == "half":
            dense[folder.name] = cider
        beside = folder.name if folder.name in dense else _control(folder, recipe, dense)
        yield {
            "name": f"{folder.name} {values}",
            "bytes": int(scores["bytes"]),
            "cider": cider,
            "dense": beside,
            "dense_cider": dense.get(beside, ""),
            "share_of_dense": round(cider / dense[beside], 4) if beside in dense else "",
            "smaller": round(1 - scores["bytes"] / (4 * weights), 4),
            "bleu_4": round(100 * scores["Bleu_4"], 2),
            "rouge_l": round(100 * scores["ROUGE_L"], 2),
            "meteor": round(100 * scores["METEOR"], 2) if "METEOR" in scores else "",
            "encoder": recipe.encoder.name,
            "captioner": recipe.decoder.name,
            "encoder_nnz": counts["encoder"],
            "decoder_nnz": counts["decoder"],
            "encoder_weights": counts["encoder_weights"],
            "decoder_weights": counts["decoder_weights"],
            "objective": recipe.objective,
            "bits": recipe.quantization.bits or "",
            "epochs": recipe.training.epochs,
            "seed": recipe.training.seed,
            "command": f"laconic study {study} --only {folder.name}",
        }


def _control(folder: Path, recipe: Recipe, dense: dict[str, float]) -> str:
    """The dense run that a run is compared with: its teacher, or the run it goes on from, or what these are compared
    with; of the same objective where there is one."""
    if folder.name in CONTROLS:
        return CONTROLS[folder.name][1]
    before = folder.with_name(Path(recipe.distillation.teacher or recipe.initial).parent.name)
    name = before.name
    if name not in dense:
        earlier = read_recipe(before)
        assert isinstance(earlier, Recipe)
        name = _control(before, earlier, dense)
    alike = f"{name}_{recipe.objective}"
    return alike if alike in dense else name


def scored(folder: Path, recipe: Recipe, values: str) -> dict[str, float]:
    """Bytes of a run's packed file, and its scores from raw photos."""
    known = folder / f"{values}.json"
    if known.exists():
        found: dict[str, float] = json.loads(known.read_text(encoding="utf8"))
        return found
    file = folder / MODEL
    if store.load(file).precision != values:
        file = folder / f"{values}.safetensors"
        if main(["pack", str(folder), "-o", str(file), "--values", values]):
            raise SystemExit(f"{folder}: cannot be packed")
    examples = data.load(recipe.data.name, expand(recipe.data.root), "val")
    names = (*metrics.STANDARD, "METEOR")  # the last where there are Java and pycocoevalcap
    captioner = laconic.load(file, backend="torch" if detects(recipe.encoder) else "engine")
    scores, _, _ = evaluate(captioner, examples, recipe.decoding, names=names)
    kept = {"bytes": file.stat().st_size, **{name: float(score) for name, score in scores.items() if score is not None}}
    write_json(known, kept)
    return kept


def carry_out() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the study's finished runs, named like its file")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    study, table = f"recipes/studies/{options.runs.name}.toml", options.runs.name.removeprefix("flickr8k_")
    names = json.loads((options.runs / STUDY).read_text(encoding="utf8"))["runs"]
    dense = {run: _cider(options.results / study / "runs.csv", run) for study, run in CONTROLS.values() if study}
    rows = [
        row
        for name in names
        if (options.runs / name / RESULT).is_file()
        for row in rows_of(options.runs / name, study, dense)
    ]
    rows = write_rows(options.results / f"{table}.csv", rows)
    if table == FRONTIER:
        best = max(float(row["dense_cider"] or 0) for row in rows)  # others were on the way to it
        points = [Point(str(row["name"]), float(row["bytes"]), float(row["cider"]), best) for row in rows]
        with drawing():
            write_figure(frontier_figure(points, PUBLISHED), options.results / f"{table}.png")


def _cider(table: Path, run: str) -> float:
    with table.open(newline="", encoding="utf8") as file:
        return next(round(float(row["CIDEr"]), 2) for row in csv.DictReader(file) if row["run"] == run)


def write_rows(table: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes the rows behind those that other commands made; gives all of them."""
    rows = [*_others(table, {row["command"] for row in rows}), *rows]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    write_text(table, text.getvalue())
    return rows


def _others(table: Path, commands: set[str]) -> list[dict[str, Any]]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf8") as file:
        return [row for row in csv.DictReader(file, restval="") if row["command"] not in commands]


if __name__ == "__main__":
    carry_out()
