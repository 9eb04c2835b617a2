"""Same seeds, same bytes: digests of a tiny run of each pruning method, captioner and objective.

    python benchmarks/digests.py --csv results/digests.csv
    python benchmarks/digests.py --check results/digests.csv supermask fisher

A change that should leave the outcome of a training as it is must leave these digests as they are, on one processor
and one version of torch: others round otherwise. Each run trains on generated scenes, in a process of its own and with
one thread; all of them take some minutes. Weights are digested by name as float32, captions as their JSON. `--check`
compares with a file, and exits with 1 where something differs. The last line printed is one JSON document.
"""

import argparse
import csv
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from laconic import store
from laconic.spec.manifest import CAPTIONS, MODEL, RESULT

COLUMNS = ("run", "weights", "captions", "CIDEr", "processor", "torch")
DIGITS = 16
RUNS = "{runs}"  # in a recipe, the folder of the runs before

Table = dict[str, Any]

BASE: Table = {
    "data": {"name": "scenes", "min_count": 1, "max_length": 12, "train": 64, "val": 16},
    "encoder": {"name": "convnet", "size": 32, "stride": 16, "norm": True},
    "decoder": {"name": "soft_attention", "options": {"word": 16, "hidden": 24}},
    "training": {
        "epochs": 4,
        "batch": 8,
        "learning_rate": 4e-3,
        "encoder_learning_rate": 4e-3,
        "warmup": 4,
        "precision": "float32",
        "mirror": False,
    },
}


def pruned(method: str, where: str = "all", freeze: str = "none", **options: Any) -> Table:
    """A recipe's [pruning]."""
    return {"pruning": {"method": method, "where": where, "freeze": freeze, "options": options}}


def continued(run: str) -> Table:
    """Begins with the captioner of a run before, whose batch norms are folded."""
    return {"initial": f"{RUNS}/{run}/{MODEL}", "encoder": {"norm": False}}


CASES: dict[str, Table] = {
    "dense": {},
    "supermask": pruned("supermask", sparsity=0.9),
    "supermask_bf16": {**pruned("supermask", sparsity=0.9), "training": {"precision": "bf16"}},
    "supermask_published": pruned("supermask", sparsity=0.8, learning_rate=5000.0, settle=0.0, pace=False),
    "supermask_adaptive": pruned("supermask", sparsity=0.8, sampling="round", adaptive=True),
    "supermask_l2_decoder": pruned("supermask", "decoder", sparsity=0.9, penalty="l2"),
    "magnitude_blind": pruned("magnitude", sparsity=0.9),
    "magnitude_uniform": pruned("magnitude", sparsity=0.9, scope="uniform"),
    "magnitude_distribution": pruned("magnitude", sparsity=0.9, scope="distribution", centred=True),
    "gradual": pruned("gradual", sparsity=0.9),
    "gradual_timed": pruned("gradual", sparsity=0.9, scope="uniform", schedule={"start": 4, "end": 16, "interval": 3}),
    "fisher": pruned("fisher", sparsity=0.9),
    "snip": pruned("snip", sparsity=0.9, batches=2),
    "snip_signed": pruned("snip", "decoder", sparsity=0.9, signed=True),
    "lottery": pruned("lottery", sparsity=0.9, ticket=f"{RUNS}/dense"),
    "frozen": {**pruned("frozen"), **continued("magnitude_blind")},
    "frozen_gates": {**pruned("frozen", ticket=f"{RUNS}/supermask"), **continued("supermask")},
    "freeze": {**pruned("supermask", freeze="decoder", sparsity=0.5), **continued("supermask_l2_decoder")},
    "scst": {**pruned("frozen"), **continued("magnitude_blind"), "objective": "scst", "scst": {"samples": 3}},
    "distillation": {
        **pruned("supermask", sparsity=0.9),
        "distillation": {"teacher": f"{RUNS}/dense/{MODEL}"},
    },
    "up_down": {
        **pruned("supermask", sparsity=0.9),
        "decoder": {"name": "up_down", "options": {"word": 16, "hidden": 24, "attention": 16}},
    },
    "object_relation": {
        **pruned("supermask", sparsity=0.9),
        "decoder": {"name": "object_relation", "options": {"width": 16, "heads": 2, "layers": 1}},
    },
    "aoanet": {
        **pruned("supermask", sparsity=0.9),
        "decoder": {"name": "aoanet", "options": {"width": 16, "heads": 2, "layers": 1}},
    },
    "frozen_encoder": {
        **pruned("magnitude", "decoder", sparsity=0.5),
        "training": {"encoder_learning_rate": 0.0, "mirror": True},
    },
}
"""Name of a run -> what its recipe has beside BASE."""


def needed(case: Table) -> set[str]:
    """Names of the runs that a case begins with."""
    return {name for name in CASES if f'"{RUNS}/{name}/' in json.dumps(case) or f'"{RUNS}/{name}"' in json.dumps(case)}


def recipe_of(case: Table, runs: Path) -> str:
    """The recipe of a case, as TOML."""
    values = json.loads(json.dumps(_beside(BASE, case)).replace(RUNS, str(runs)))
    return "\n".join(_toml(values)) + "\n"


def _beside(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Table:
    """The one with the changes of the other; the tables of a captioner and of a method are taken whole."""
    joined = {key: {**base[key], **changes[key]} for key in base.keys() & changes.keys() if key != "decoder"}
    return {**base, **changes, **joined}


def _toml(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    yield from (f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict))
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ("", f"[{prefix}{key}]", *_toml(value, f"{prefix}{key}."))


def train(name: str, work: Path) -> dict[str, str]:
    """Carries a case out in `work`; its row of the table."""
    recipe = work / f"{name}.toml"
    recipe.write_text(recipe_of(CASES[name], work / "runs"))
    folder, cache = work / "runs" / name, work / "cache"
    command = [sys.executable, "-m", "laconic", "train", recipe, "--out", folder, "--cache", cache, "--threads", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=work)
    weights = hashlib.sha256()
    packed = store.load(folder / MODEL)
    for tensor in sorted(packed):
        weights.update(tensor.encode() + np.asarray(packed[tensor], np.float32).tobytes())
    captions = json.dumps(json.loads((folder / CAPTIONS).read_text()))
    return {
        "run": name,
        "weights": weights.hexdigest()[:DIGITS],
        "captions": hashlib.sha256(captions.encode()).hexdigest()[:DIGITS],
        "CIDEr": str(round(json.loads((folder / RESULT).read_text())["scores"]["CIDEr"], 6)),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="runs to do, with those that they begin with; all by default")
    parser.add_argument("--csv", type=Path, help="write the digests here")
    parser.add_argument("--check", type=Path, help="compare them with those of this file")
    options = parser.parse_args()
    if unknown := set(options.runs) - CASES.keys():
        parser.error(f"no run {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    asked = {*options.runs} or {*CASES}
    asked |= {name for run in asked for name in needed(CASES[run])}
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in CASES:
            if name in asked:
                rows.append(train(name, Path(work)))
                print(*rows[-1].values(), flush=True)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    differing = []
    if options.check:
        with options.check.open(newline="") as file:
            known = {row["run"]: row for row in csv.DictReader(file)}
        differing = [row["run"] for row in rows if row != known.get(row["run"])]
    print(json.dumps({"runs": len(rows), "differing": differing}))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
