"""From photos to small files on Flickr8k, as docs/RESULTS.md shows it: a dense captioner and pruned ones.

    python benchmarks/flickr8k.py

Carries out the recipes (a finished run is not repeated, an interrupted one goes on), packs each captioner in half
precision and in calibrated compact form, scores the packed files on the validation split from raw photos, and condenses
everything into results/flickr8k.csv (a row per run) and results/flickr8k_epochs.csv (a row per epoch).
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch

from laconic import data
from laconic.captioner.captioning import evaluate
from laconic.captioner.packing import load
from laconic.cli import main
from laconic.cli.console import console_for, watching
from laconic.config import expand, read_toml
from laconic.recipes.folders import write_json
from laconic.recipes.recipe import Recipe
from laconic.recipes.run import run_recipe

RECIPES = {  # file name -> name in the table; each may begin with what those before it have trained
    "flickr8k_dense": "dense",
    "flickr8k_smp90": "SMP 90 %",
    "flickr8k_smp95": "SMP 95 %",
    "flickr8k_smp95_encoder80": "and encoder 80 %",
}


def carry_out(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs, packs and scores one recipe; returns its row."""
    path = Path("recipes") / f"{name}.toml"
    recipe = read_toml(path, Recipe)
    folder = options.runs / name
    with watching(console_for()) as watch:
        result = run_recipe(recipe, folder, options.cache, resume=True, watch=watch)
    found = describe(folder, recipe, result)
    return {"recipe": name, "name": RECIPES[name], **found, "command": f"laconic train {path}"}


def describe(folder: Path, recipe: Recipe, result: dict[str, Any]) -> dict[str, Any]:
    """What a finished run has come to, once packed and scored from raw photos, too."""
    half, compact = (score_packed(recipe, folder, values) for values in ("half", "compact"))
    counts, seconds = result["non_zeros"], result["seconds"]
    weights = counts["encoder_weights"] + counts["decoder_weights"]
    return {
        "sparsity": recipe.pruning.options.get("sparsity", 0.0),
        "epochs": recipe.training.epochs,
        "CIDEr": round(100 * result["scores"]["CIDEr"], 2),
        "Bleu_4": round(100 * result["scores"]["Bleu_4"], 2),
        "ROUGE_L": round(100 * result["scores"]["ROUGE_L"], 2),
        "decoder_weights": counts["decoder_weights"],
        "decoder_non_zeros": counts["decoder"],
        "encoder_weights": counts["encoder_weights"],
        "encoder_non_zeros": counts["encoder"],
        "float32_bytes": 4 * weights,
        "half_bytes": half["bytes"],
        "half_CIDEr": round(100 * half["CIDEr"], 2),
        "compact_bytes": compact["bytes"],
        "compact_CIDEr": round(100 * compact["CIDEr"], 2),
        "features_seconds": seconds["features"],
        "training_seconds": seconds["training"],
        "scoring_seconds": seconds["scoring"],
        "half_seconds": half["seconds"],
        "compact_seconds": compact["seconds"],
    }


def score_packed(recipe: Recipe, folder: Path, values: str) -> dict[str, float]:
    """Bytes of the packed file, what it scores from raw photos, encoder included, and the seconds of packing."""
    result = folder / f"{values}.json"
    if result.exists():
        return json.loads(result.read_text(encoding="utf8"))  # type: ignore[no-any-return]
    started = time.perf_counter()
    file = folder / f"{values}.safetensors"
    if main(["pack", str(folder), "-o", str(file), "--values", values]):
        raise SystemExit(f"{folder}: cannot be packed")
    seconds = time.perf_counter() - started
    examples = data.load(recipe.data.name, expand(recipe.data.root), "val")
    scores, _, _ = evaluate(load(file), examples, recipe.decoding)
    facts = {"bytes": file.stat().st_size, "CIDEr": scores["CIDEr"], "seconds": round(seconds, 2)}
    write_json(result, facts)
    return facts


def epochs(name: str, runs: Path) -> list[dict[str, Any]]:
    """The last logged training row and the validation row of each epoch."""
    rows: list[dict[str, Any]] = []
    latest: dict[str, Any] = {}
    for line in (runs / name / "log.jsonl").read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        if "epoch" not in row:
            latest = row
            continue
        facts = {key: latest.get(key, "") for key in ("loss", "lr", "sparsity", "gate_mean", "penalty", "seconds")}
        rows.append({"recipe": name, "epoch": row["epoch"], "CIDEr": round(100 * row["CIDEr"], 2), **facts})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_options(description: str, runs: Path) -> argparse.Namespace:
    """Options of the command line, --threads carried out already; `runs` is where runs go by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=Path, default=runs)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def carry_out_all() -> None:
    options = read_options(__doc__.splitlines()[0], Path("runs"))
    rows = [carry_out(name, options) for name in RECIPES]
    for row in rows:
        row["share_of_dense"] = round(row["CIDEr"] / rows[0]["CIDEr"], 4)
    write(options.results / "flickr8k.csv", rows)
    write(options.results / "flickr8k_epochs.csv", [row for name in RECIPES for row in epochs(name, options.runs)])
    print(json.dumps(rows))


if __name__ == "__main__":
    carry_out_all()
