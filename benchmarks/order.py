"""In which order to prune, quantise and change the architecture: results/order.csv and its figure.

    python benchmarks/order.py runs/flickr8k_order --cache cache

A row for each finished run of the study, with bytes and non-zeros of its decoder (the encoder rests, and is the same in
all of them), CIDEr, and the cross-entropy of a word of the validation captions, in which runs differ less by chance.
Beside them the captioners that were pruned alone, their decoders quantised after training on 64 training photos: to
4 bits for each weight, and to nearly as few as that can do. What has been scored before is not
scored again, and rows of runs that are not in the folder stay as they are.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frontier import write_rows

from laconic import data, store
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.compress.quantized.after_training import quantize
from laconic.config import expand
from laconic.machine.process import settle_in
from laconic.recipes.calibration import training_batches
from laconic.recipes.folders import read_recipe, write_json
from laconic.recipes.recipe import Recipe
from laconic.report.drawing import drawing, subplots, write_figure
from laconic.spec.manifest import MODEL, RESULT
from laconic.text import pad_groups
from laconic.training.batches import Source
from laconic.training.evaluation import BATCH, evaluate
from laconic.training.features import cache_features
from laconic.training.loop import cross_entropy

PHOTOS = 64  # to calibrate on
CODES = (4.0, 2.6)  # bits for each weight, calibrated
ORDERS = {
    "PQ": "prune,\nquantise",
    "QP": "quantise,\nprune",
    "joint": "both\nat once",
    "late": "both, few\nbits late",
    "APQ": "factorise,\nprune,\nquantise",
}


def rows_of(folder: Path, cache: Path, study: str) -> Iterator[dict[str, Any]]:
    """Rows of a finished run: its own, and of one that was pruned alone those of its calibrated forms."""
    order, *bits, seed = folder.name.split("_")
    yield row(folder, folder / MODEL, cache, study, order=order, bits=int(bits[0][0]) if bits else 32, seed=int(seed))
    if order == "P":
        for target in CODES:
            file = calibrated(folder, target)
            yield row(folder, file, cache, study, order="P calibrated", bits=target, seed=int(seed))


def row(folder: Path, file: Path, cache: Path, study: str, *, order: str, bits: float, seed: int) -> dict[str, Any]:
    """What is told of a file that a run left or that was made of it."""
    recipe = read_recipe(folder)
    assert isinstance(recipe, Recipe)
    scores = scored(file, recipe, cache)
    entries = [entry for name, entry in store.load(file).entries.items() if name.startswith("decoder.")]
    return {
        "name": folder.name if file.name == MODEL else f"{folder.name} {file.stem}",
        "order": order,
        "bits": bits,
        "seed": seed,
        "decoder_bytes": sum(entry.bytes for entry in entries),
        "decoder_nnz": sum(entry.non_zeros for entry in entries),
        "cider": round(100 * scores["CIDEr"], 2),
        "cross_entropy": round(scores["cross_entropy"], 4),
        "epochs": recipe.training.epochs,
        "command": f"laconic study {study} --only {folder.name}",
    }


def scored(file: Path, recipe: Recipe, cache: Path) -> dict[str, float]:
    """CIDEr of a file's captions, and the mean cross-entropy of a word of people's captions, in nats."""
    known = file.with_suffix(".scores.json")
    if known.exists():
        found: dict[str, float] = json.loads(known.read_text(encoding="utf8"))
        return found
    captioner = load(file)
    examples = data.load(recipe.data.name, expand(recipe.data.root), "val")
    source = cache_features(captioner.encoder, captioner.config.encoder, examples, cache)
    scores, _ = evaluate(captioner, source, examples, recipe.decoding)
    kept = {"CIDEr": float(scores["CIDEr"]), "cross_entropy": surprise(captioner, source, examples, recipe)}
    write_json(known, kept)
    return kept


@torch.no_grad()
def surprise(captioner: ImageCaptioner, source: Source, examples: data.Dataset, recipe: Recipe) -> float:
    """Mean cross-entropy of a word."""
    length, total, words = recipe.data.max_length, 0.0, 0
    for start in range(0, len(examples), BATCH):
        rows = range(start, min(start + BATCH, len(examples)))
        said = [[captioner.vocabulary.encode(text, length) for text in examples[row].captions] for row in rows]
        tokens = torch.from_numpy(pad_groups(said))
        logits = captioner(source.batch(np.array(rows)), tokens)
        total += float(cross_entropy(logits, tokens)) * len(logits)
        words += len(logits)
    return total / words


def calibrated(folder: Path, bits: float) -> Path:
    """The run's captioner with its decoder quantised after training."""
    file = folder / f"calibrated_{bits:.2f}.safetensors"
    if file.exists():
        return file
    captioner = load(folder / MODEL)
    decoder = captioner.decoder
    decoder.fold()
    batches = [(captioner.features(inputs), tokens) for inputs, tokens in training_batches(captioner, folder, PHOTOS)]
    steps = quantize(decoder, lambda batch: decoder(*batch), batches, bits=bits)
    save(captioner, file, "trained", steps={f"decoder.{name}": step for name, step in steps.items()})
    return file


def figure_of(rows: list[dict[str, Any]]) -> Any:
    """CIDEr of each order less that of pruning first, by seed, for each number of bits."""
    found: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for one in rows:
        if one["order"] in ORDERS:
            found[int(one["bits"]), int(one["seed"])][one["order"]] = float(one["cider"])
    figure, axes = subplots(1, 2, 3.4, sharey=True)
    for panel, bits in zip(axes, (4, 3), strict=True):
        panel.axhline(0, color="#8a8a8a", linewidth=1)
        panel.set_title(f"{bits} bits", fontsize=10)
        for place, order in enumerate(ORDERS):
            gains = [by[order] - by["PQ"] for (b, _), by in found.items() if b == bits and {order, "PQ"} <= by.keys()]
            panel.plot([place] * len(gains), gains, "o", color="#2166ac", markersize=5, fillstyle="none")
            if gains:
                panel.plot(place, np.mean(gains), "_", color="#2166ac", markersize=18, markeredgewidth=2)
        panel.set_xticks(range(len(ORDERS)), ORDERS.values(), fontsize=7)
    axes[0].set_ylabel("CIDEr beside pruning first", fontsize=9)
    return figure


def carry_out() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of the study's finished runs")
    parser.add_argument("--study", default="recipes/studies/flickr8k_order.toml")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    settle_in(options.threads)
    folders = sorted(path.parent for path in options.runs.glob(f"*/{RESULT}"))
    rows = [row for folder in folders for row in rows_of(folder, options.cache, options.study)]
    rows = write_rows(options.results / "order.csv", rows)
    with drawing():
        write_figure(figure_of(rows), options.results / "order.png")


if __name__ == "__main__":
    carry_out()
