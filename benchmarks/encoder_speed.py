"""How long the engine takes to see a photo with each encoder, at 224 pixels, beside MobileNet-V2.

    OMP_NUM_THREADS=1 python benchmarks/encoder_speed.py --csv results/encoder_speed.csv

Random weights; sparse ones are those of 1x1 convolutions. Every time is a median of one interleaved run on one thread.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import random_captioners

from laconic import store
from laconic.bench.processor import level, processor
from laconic.bench.timing import interleaved
from laconic.runtime.native_path import NativePath
from laconic.runtime.planning import make_plan
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig

FIRST = "mobilenet_v2"
ENCODERS = (FIRST, "efficientnet_lite0", "efficientnet_lite1")
SPARSITIES = (0.0, 0.8)
SIZE = 224
WORDS = 60


def path_of(name: str, sparsity: float, folder: Path) -> NativePath:
    """What runs the encoder, with a captioner that costs nothing beside it."""
    model = ModelConfig(EncoderConfig(name, SIZE), DecoderConfig("soft_attention", {"word": 4, "hidden": 4}))
    file = random_captioners.write(folder / f"{name}-{sparsity}", model, WORDS, sparsity, 0.0)
    return NativePath(make_plan(store.load(file)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=31)
    given = parser.parse_args()
    cases = [(name, sparsity) for sparsity in SPARSITIES for name in ENCODERS]
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as folder:
        paths = {case: path_of(*case, Path(folder)) for case in cases}
    ways = {f"{name} {sparsity}": lambda path=path: path.features(pixels) for (name, sparsity), path in paths.items()}
    for way in ways.values():
        way()
    seconds = interleaved(ways, given.rounds)
    rows = [
        {
            "encoder": name, "sparsity": sparsity, "ms": round(1e3 * seconds[f"{name} {sparsity}"], 2),
            "times_mobilenet_v2": round(seconds[f"{name} {sparsity}"] / seconds[f"{FIRST} {sparsity}"], 3),
            "rounds": given.rounds, "processor": processor(), "level": level(),
            "command": " ".join(["python", *sys.argv]),
        }
        for name, sparsity in cases
    ]  # fmt: skip
    with given.csv.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
