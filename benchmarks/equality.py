"""Whether the engine says what PyTorch says, photo by photo.

    python benchmarks/equality.py --trained tiny.safetensors --csv results/engine_equality.csv

The captioner that is given is compared on 1,000 photos of Flickr8k's validation split; Up-Down, Object Relation
Transformer and AoANet with random, pruned weights, on MobileNet-V2, on 200. Log-probabilities are those of each word
of the best caption, where both say the same. The first captioner is compared with weights in bfloat16 as well.
"""

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import random_captioners
import torch

from laconic import data
from laconic.bench.processor import level, processor
from laconic.captioner.engine import Engine
from laconic.captioner.packing import load
from laconic.decode.search import Decoding
from laconic.runtime.values import Width
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig

BEAMS, BATCH = (1, 3, 5), 50
SPARSITY = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trained", type=Path, required=True, help="a packed captioner")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--others", type=int, default=200, help="photos for the other captioners")
    given = parser.parse_args()
    root = Path(os.environ.get("LACONIC_SHARED", "../shared")) / "data" / "flickr8k"
    examples = data.load("flickr8k", root, "val")
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as folder:
        files = {"trained": (given.trained, given.photos)}
        for name in ("up_down", "object_relation", "aoanet"):
            model = ModelConfig(EncoderConfig("mobilenet_v2"), DecoderConfig(name))
            path = random_captioners.write(Path(folder) / name, model, random_captioners.FLICKR8K_WORDS, 0.0, SPARSITY)
            files[f"random {name}"] = path, given.others
        rows = [row for name, (path, count) in files.items() for row in compared(name, path, examples, count)]
        rows += compared("trained", given.trained, examples, given.photos, "bfloat16")
    with given.csv.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def compared(
    name: str, path: Path, examples: data.Dataset, count: int, width: Width = "exact"
) -> Iterator[dict[str, Any]]:
    """A row for each beam; `width` is that of the engine's weights."""
    engine, module = Engine.load(path, width=width), load(path)
    size = engine.config.encoder.size
    pixels = np.stack([data.resize(examples[i].pixels(), size) for i in range(min(count, len(examples)))])
    with torch.inference_mode():
        features = [module.encode(torch.from_numpy(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)]
    for beam in BEAMS:
        decoding = Decoding(beam=beam)
        theirs = [best[0] for some in features for best in module.search(some, decoding)]
        ours = [best[0] for best in engine.search(pixels, decoding)]
        same = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.tokens == b.tokens]
        furthest = max(float(np.abs(np.subtract(a.log_probs, b.log_probs)).max()) for a, b in same)
        row = {
            "captioner": name, "decoder": engine.config.decoder.name, "encoder": engine.config.encoder.name,
            "width": width, "beam": beam, "photos": len(pixels), "equal": len(same),
            "different_captions": len({hypothesis.tokens for hypothesis in ours}),
            "greatest_difference_of_log_probability": f"{furthest:.2g}", "processor": processor(), "level": level(),
            "command": " ".join(["python", *sys.argv]),
        }  # fmt: skip
        print(*(f"{key}={value}" for key, value in list(row.items())[:-3]), flush=True)
        yield row


if __name__ == "__main__":
    main()
