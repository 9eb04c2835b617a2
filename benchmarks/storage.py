"""How small packed files are, how close to their entropy bound, and how fast and cheaply they are read.

    python benchmarks/storage.py --json - [--csv results/storage.csv] [--only TINY3 ...]

TINY3 is the Supermask Pruning authors' Up-Down checkpoint (weights only, without its vocabulary). The others have the
tensors of their full-size models and are made from fixed seeds:
* Masks are independent random bits, without rows or columns that die together. A matrix keeps the share that its
  counterpart in TINY3 keeps, all log-odds shifted alike so that the model's sparsity is as named; "uniform" rows give
  every matrix the same share instead.
* Non-zeros are drawn from those of the TINY3 matrix of the same kind, biases from TINY3's biases, both from the
  interpolated inverse of their distribution; gains of layer norm are one plus a bias. All vectors are dense.

Rows "calibrated" are TINY3 folded and quantised on the five sample images and the captions it gives them, and those
captions held by the output's biases, as `laconic convert --calibrate` does. Logit error
(relative, centred) and KL divergence (nats) are teacher-forced on the checkpoint's own captions of those images.
Columns "held_out" leave one image out of the calibration and measure on that one: means over the five, and how many
of the five left-out captions stay. Five captions decide little: some of their words lead by 0.03 nats only.

The bound is computed here, from the stored tensors: log2 C(n, k) for each mask and the order-0 entropy of each
tensor's values: of the codes where there are steps, else of its byte planes. Speed is process CPU time of decoding
every tensor of the model, one after the other, best of the repeats, with and without writing the result into dense
arrays that exist already. Memory is what Python and numpy allocate at most (tracemalloc) while every tensor becomes
CSR and is kept; the packed file itself is memory-mapped. The last line of the output is one JSON document.
"""

import argparse
import copy
import csv
import json
import math
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from laconic import store

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("LACONIC_SHARED", ROOT.parent / "shared"))
SHAPES = ROOT / "tests/golden/smp/b_full_size_param_tables.json"
TINY3 = "data/updown_tiny3/model_best_pruned_sparse.pth"
UP_DOWN, ORT = "up_down_lstm", "relation_transformer"

# Name, shapes, sparsity, uniform, values, bytes to stay below, file over its bound, bytes in the paper
CASES: list[tuple[str, str | None, float, bool, str, int | None, float | None, int | None]] = [
    ("TINY3", None, 0, False, "exact", 220_000, None, 978_639),
    ("TINY3", None, 0, False, "half", 114_000, None, 978_639),
    ("TINY3", None, 0, False, "fine", None, None, 978_639),
    ("TINY3", None, 0, False, "compact", 60_000, None, 978_639),
    ("TINY3", None, 0, False, "fine, calibrated", None, None, 978_639),
    ("TINY3", None, 0, False, "compact, calibrated", 60_000, None, 978_639),
    ("Up-Down 99.1 %", UP_DOWN, 0.991, False, "half", 1_300_000, None, 8_700_000),
    ("Up-Down 99.1 %", UP_DOWN, 0.991, False, "compact", 740_000, 1.03, 8_700_000),
    ("Up-Down 99.1 %, uniform", UP_DOWN, 0.991, True, "compact", None, 1.03, 8_700_000),
    ("Up-Down 95 %", UP_DOWN, 0.95, False, "half", None, None, 53_300_000),
    ("Up-Down 95 %", UP_DOWN, 0.95, False, "compact", 3_200_000, 1.03, 53_300_000),
    ("ORT 99.1 %", ORT, 0.991, False, "half", None, None, 14_500_000),
    ("ORT 99.1 %", ORT, 0.991, False, "compact", 900_000, 1.05, 14_500_000),
    ("ORT 95 %", ORT, 0.95, False, "half", None, None, 66_200_000),
    ("ORT 95 %", ORT, 0.95, False, "compact", 3_500_000, 1.05, 66_200_000),
]
COUNTERPARTS = {  # part of a name -> TINY3 matrix of the same kind; the first that fits
    "lut": "embed.0.weight",
    "generator": "logit.weight",
    "feed_forward": "core.lang_lstm.weight_ih",
    "WGs": "core.attention.alpha_net.weight",
    "attn": "core.attention.h2att.weight",
}
COLUMNS = (
    "model", "values", "non_zeros", "bytes", "bar_bytes", "paper_bytes", "bound_bytes", "over_bound", "bar_over_bound",
    "decode_m_per_s", "decode_into_m_per_s", "csr_peak_mb", "csr_bar_mb", "captions_unchanged", "captioner_bytes",
    "calibration", "logit_error", "kl", "held_out_logit_error", "held_out_kl", "held_out_captions_unchanged",
    "command",
)  # fmt: skip

Weights = dict[str, np.ndarray]


def tiny3() -> Weights:
    import torch

    tensors = torch.load(SHARED / TINY3, map_location="cpu", weights_only=True)
    return {name: (t.to_dense() if t.is_sparse else t).numpy() for name, t in tensors.items()}


# Full-size models


def counterpart(name: str, source: Weights) -> str:
    if name in source:
        return name
    return next((matrix for part, matrix in COUNTERPARTS.items() if part in name), "att_embed.0.weight")


def shares(shapes: dict[str, list[int]], source: Weights, sparsity: float, uniform: bool) -> dict[str, float]:
    """Share of non-zeros of each matrix: log-odds of the counterpart, shifted by bisection."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items() if len(shape) > 1}
    if uniform:
        return dict.fromkeys(sizes, 1 - sparsity)
    kept = {name: np.mean(source[counterpart(name, source)] != 0) for name in sizes}
    odds = {name: math.log(share / (1 - share)) for name, share in kept.items()}
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        found = {name: 1 / (1 + math.exp(-value - middle)) for name, value in odds.items()}
        total = sum(found[name] * size for name, size in sizes.items())
        low, high = (middle, high) if total < (1 - sparsity) * sum(sizes.values()) else (low, middle)
    return found


def draw(rng: np.random.Generator, values: np.ndarray, count: int) -> np.ndarray:
    ordered = np.sort(values[values != 0])
    return np.interp(rng.random(count), np.linspace(0, 1, len(ordered)), ordered).astype(np.float32)


def generate(model: str, sparsity: float, uniform: bool, source: Weights, seed: int = 0) -> Weights:
    shapes = json.loads(SHAPES.read_text())[model]["params"]
    kept = shares(shapes, source, sparsity, uniform)
    biases = np.concatenate([array for array in source.values() if array.ndim == 1])
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name in kept:
            array = np.zeros(math.prod(shape), np.float32)
            at = np.flatnonzero(rng.random(array.size, np.float32) < kept[name])
            array[at] = draw(rng, source[counterpart(name, source)], len(at))
        else:
            like = source[name] if name in source and source[name].size > 1 else biases
            array = draw(rng, like, math.prod(shape)) + np.float32(name.endswith("a_2"))
        weights[name] = array.reshape(shape)
    return weights


# Measures


def bound_bytes(packed: store.Packed) -> float:
    """See the top of this file. Computed from decoded tensors, and not by the code that packs."""

    def entropy(symbols: np.ndarray) -> float:
        counts = np.unique(symbols, return_counts=True)[1]
        return float(counts @ np.log2(counts.sum() / counts))

    def log2_factorial(n: int) -> float:
        return math.lgamma(n + 1) / math.log(2)

    bits = 0.0
    for name, array in packed.items():
        values = array[array != 0]
        bits += log2_factorial(array.size) - log2_factorial(values.size) - log2_factorial(array.size - values.size)
        if packed.entries[name].values == "step":
            bits += entropy(values)
        else:
            stored = values.astype(np.float16 if packed.precision == "half" else np.float32)
            turned = stored.view(f"u{stored.itemsize}")
            turned = (turned << 1) | (turned >> (8 * stored.itemsize - 1))  # the exponent in a byte of its own
            bits += sum(entropy(turned >> shift & 255) for shift in range(0, 8 * stored.itemsize, 8))
    return bits / 8


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def speeds(packed: store.Packed, repeats: int) -> tuple[float, float]:
    """Million weights a second: decoded, and decoded into arrays that exist."""
    existing = {name: np.ones(entry.shape, entry.numpy_dtype) for name, entry in packed.entries.items()}
    weights = sum(array.size for array in existing.values()) / 1e6

    def decode() -> None:
        for name in packed:
            packed[name]

    def decode_into() -> None:
        for name, array in existing.items():
            array[...] = packed[name]

    return weights / cpu_seconds(decode, repeats), weights / cpu_seconds(decode_into, repeats)


def csr_peak(packed: store.Packed) -> float:
    """MB."""
    tracemalloc.start()
    kept = [packed.csr(name) for name in packed]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6 if kept else 0.0


class Samples:
    """The published TINY3 captioner and the five images that there are region features for."""

    def __init__(self) -> None:
        from laconic.data.regions import RegionFolder
        from laconic.exchange.smp import convert
        from laconic.recipes.calibration import own_batches

        regions = RegionFolder(SHARED / "data/coco_sample/bu", 2048)
        self.images = [regions[image] for image in regions.ids()]
        self.published = convert(SHARED / "data/updown_tiny3")
        self.batches = [own_batches(self.published, [image])[0] for image in self.images]

    def packed(self, values: str, calibration: list[int], folder: Path) -> tuple[int, int, Path]:
        """Bytes with and without the vocabulary, and the file of the captioner; calibrated on these images if any."""
        from laconic.captioner.packing import save
        from laconic.recipes.calibration import calibrate, hold_captions, own_batches

        captioner = copy.deepcopy(self.published)
        steps = None
        if calibration:
            images = [self.images[i] for i in calibration]
            batches = own_batches(self.published, images)
            steps = calibrate(captioner, values, batches)
            hold_captions(captioner, batches, steps)
        path = folder / "captioner"
        size = save(captioner, path, values, steps=steps)
        own = {name.removeprefix("decoder."): step for name, step in (steps or {}).items()}
        return size, store.save(captioner.decoder, folder / "packed", values=values, steps=own), path

    def measure(self, path: Path, on: list[int]) -> tuple[float, float, int]:
        """Logit error, KL divergence, and the number of unchanged greedy captions of these images."""
        import torch

        from laconic.captioner.packing import load
        from laconic.decode.search import Decoding

        captioner, greedy = load(path), Decoding(1)
        before, after, same = [], [], 0
        with torch.no_grad():
            for inputs, tokens in (self.batches[i] for i in on):
                before.append(self.published(inputs, tokens))
                after.append(captioner(inputs, tokens))
                found = [model.search(inputs, greedy)[0][0].tokens for model in (self.published, captioner)]
                same += tuple(found[0]) == tuple(found[1])
        a, b = torch.cat(before), torch.cat(after)
        moved = (a - a.mean(-1, keepdim=True)) - (b - b.mean(-1, keepdim=True))
        log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
        divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
        return float(moved.norm() / (a - a.mean(-1, keepdim=True)).norm()), float(divergence), same

    def columns(self, values: str, calibrated: bool, folder: Path) -> dict[str, object]:
        everyone = list(range(len(self.images)))
        size, _, path = self.packed(values, everyone if calibrated else [], folder)
        error, divergence, same = self.measure(path, everyone)
        row: dict[str, object] = {
            "captions_unchanged": f"{same} of {len(everyone)}",
            "captioner_bytes": size,
            "calibration": f"{len(everyone)} images" if calibrated else "none",
            "logit_error": round(error, 5),
            "kl": round(divergence, 6),
        }
        if calibrated:
            found = []
            for left in everyone:
                path = self.packed(values, [i for i in everyone if i != left], folder)[2]
                found.append(self.measure(path, [left]))
            row["held_out_logit_error"] = round(sum(one[0] for one in found) / len(found), 5)
            row["held_out_kl"] = round(sum(one[1] for one in found) / len(found), 6)
            row["held_out_captions_unchanged"] = f"{sum(one[2] for one in found)} of {len(found)}"
        return row


def rows(only: list[str], repeats: int, folder: Path) -> Iterator[dict[str, object]]:
    source = tiny3()
    made: tuple[object, Weights] = (None, {})
    samples: Samples | None = None
    for name, model, sparsity, uniform, values, bar, bar_over, paper in CASES:
        if only and not any(name.startswith(part) for part in only):
            continue
        if made[0] != name:
            made = name, source if model is None else generate(model, sparsity, uniform, source)
        path = folder / "packed"
        values, _, calibrated = values.partition(", ")
        if model is None and samples is None:
            samples = Samples()
        facts: dict[str, object] = {}
        if model is None and samples is not None:
            facts = samples.columns(values, bool(calibrated), folder)
        if calibrated and samples is not None:
            size = samples.packed(values, list(range(len(samples.images))), folder)[1]
        else:
            size = store.save(made[1], path, values=values)
        packed = store.load(path)
        bound = bound_bytes(packed)
        decode, decode_into = speeds(packed, repeats)
        row: dict[str, object] = {
            "model": name,
            "values": values,
            "non_zeros": sum(entry.non_zeros for entry in packed.entries.values()),
            "bytes": size,
            "bar_bytes": bar,
            "paper_bytes": paper,
            "bound_bytes": round(bound),
            "over_bound": round(size / bound, 4),
            "bar_over_bound": bar_over,
            "decode_m_per_s": round(decode, 1),
            "decode_into_m_per_s": round(decode_into, 1),
            "csr_peak_mb": round(csr_peak(packed), 2),
            "csr_bar_mb": round(4 * size / 1e6 + 16, 2),
        }
        yield row | facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of models' names")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    parser.add_argument("--json", choices=["-"], help="print nothing but the JSON document")
    arguments = parser.parse_args()
    command = "python " + " ".join(sys.argv)
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(arguments.only, arguments.repeats, Path(folder)):
            table.append({**dict.fromkeys(COLUMNS), **row, "command": command})
            if not arguments.json:
                facts = "  ".join(f"{key} {value}" for key, value in row.items() if value is not None)
                print(facts.removeprefix("model "), flush=True)
    if arguments.csv:
        partial = arguments.csv.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
        os.replace(partial, arguments.csv)
    print(json.dumps({"benchmark": "storage", "rows": table}))


if __name__ == "__main__":
    main()
