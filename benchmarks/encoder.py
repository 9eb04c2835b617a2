"""Scheme A of the encoder study: encoder and decoder pruned by SMP, against dense captioners of the same budget.

    python benchmarks/encoder.py

Carries out the chains of recipes/studies/flickr8k_encoder.toml that end in RUNS (a finished run is not repeated), packs
and scores what they end in as benchmarks/flickr8k.py does, and writes results/flickr8k_encoder.csv, a row per run.
"""

import json
from pathlib import Path
from typing import Any

from flickr8k import describe, read_options, write

from laconic.cli import main
from laconic.recipes.folders import read_recipe

STUDY = Path("recipes/studies/flickr8k_encoder.toml")
RUNS = ("dense", "dense_tuned", "decoder_smp_95", "A2_smp", "A2_smp_84", "A2_smp_91")


def row(folder: Path) -> dict[str, Any]:
    """A run of the study, finished, as a row of the table."""
    recipe = read_recipe(folder)
    result = json.loads((folder / "result.json").read_text(encoding="utf8"))
    weights = result["non_zeros"]["encoder_weights"] + result["non_zeros"]["decoder_weights"]
    kept = result["non_zeros"]["encoder"] + result["non_zeros"]["decoder"]
    return {
        "run": folder.name,
        **describe(folder, recipe, result),
        "sparsity": round(1 - kept / weights, 4),  # of the whole captioner, biases included
        "command": f"laconic study {STUDY} --only {folder.name}",
    }


def carry_out_all() -> None:
    options = read_options(__doc__.splitlines()[0], Path("runs") / STUDY.stem)
    only = [word for run in RUNS for word in ("--only", run)]
    places = ["--out", str(options.runs), "--cache", str(options.cache), "--threads", str(options.threads)]
    if main(["study", str(STUDY), *only, *places]):
        raise SystemExit(f"{STUDY}: not all runs have a result")
    rows = [row(options.runs / name) for name in RUNS]
    found = {one["run"]: one["CIDEr"] for one in rows}
    for one in rows:
        one["share_of_dense"] = round(one["CIDEr"] / found["dense"], 4)
        one["share_of_dense_tuned"] = round(one["CIDEr"] / found["dense_tuned"], 4)
    write(options.results / f"{STUDY.stem}.csv", rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    carry_out_all()
