"""Finished runs for reports, made without training: tiny captioners of scenes with made-up logs and scores."""

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from laconic import data
from laconic.captioner.accounting import caption_operations, matrices, non_zeros
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import save
from laconic.config import to_mapping
from laconic.metrics import caption_quality
from laconic.recipes.recipe import DataRecipe, Pruning, Recipe
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary
from laconic.training.settings import Training

TRAIN, VAL = 30, 6


@functools.cache
def training_captions() -> frozenset[str]:
    examples = data.load("scenes", None, "train", count=TRAIN)
    return frozenset(caption for i in range(TRAIN) for caption in examples[i].captions)


def finish_run(
    folder: Path,
    cider: float,
    *,
    hidden: int = 8,
    steps: int = 200,
    method: str = "none",
    where: str = "decoder",
    freeze: str = "none",
    **pruning: Any,
) -> Path:
    """A folder as `laconic train` leaves it; the decoder's matrices lose the share `sparsity` of their weights."""
    recipe = Recipe(
        data=DataRecipe("scenes", min_count=1, train=TRAIN, val=VAL),
        encoder=EncoderConfig("toy", size=32),
        decoder=DecoderConfig(options={"word": 8, "hidden": hidden}),
        pruning=Pruning(method, where, freeze, pruning),
        training=Training(epochs=2),
    )
    examples = data.load("scenes", None, "val", count=VAL)
    torch.manual_seed(0)
    vocabulary = Vocabulary.build([c for i in range(VAL) for c in examples[i].captions], 1)
    captioner = ImageCaptioner(ModelConfig(recipe.encoder, recipe.decoder), vocabulary)
    with torch.no_grad():
        for weight in captioner.decoder.parameters():
            if weight.ndim > 1 and "sparsity" in pruning:
                weight[torch.rand_like(weight) < pruning["sparsity"]] = 0
    folder.mkdir(parents=True)
    scores = {"Bleu_4": cider / 3, "ROUGE_L": cider / 2, "CIDEr": cider}
    size = save(captioner, folder / "model.safetensors", "exact")
    seconds = {"features": 1.0, "training": 90.0, "scoring": 2.0}
    captions = [{"image_id": examples[i].id, "caption": f"a red ring and {i} of <b>"} for i in range(VAL)]
    result = {
        "scores": scores,
        "quality": asdict(caption_quality([row["caption"] for row in captions], training_captions())),
        "bytes": size,
        "non_zeros": non_zeros(captioner),
        "matrices": matrices(folder / "model.safetensors"),
        "operations": asdict(caption_operations(captioner)),
        "seconds": seconds,
        "skipped": [],
    }
    gates = {"sparsity": 0.5, "gate_mean": 1.0, "penalty": 0.1} if recipe.pruning.method == "supermask" else {}
    log = [{"step": step, "loss": 5.0 - step / steps, "lr": 0.001, **gates} for step in range(20, steps + 1, 20)]
    log.append({"epoch": 2, "step": steps, "CIDEr": cider})
    for name, value in {"recipe": to_mapping(recipe), "result": result, "captions": captions}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """A folder of runs: dense and small dense, three methods at two sparsities, and an ablation of m."""
    folder = tmp_path_factory.mktemp("runs")
    finish_run(folder / "dense", 0.50)
    finish_run(folder / "small", 0.40, hidden=6)
    for sparsity, ciders in {0.8: (0.49, 0.47, 0.45), 0.95: (0.48, 0.44, 0.41)}.items():
        finish_run(folder / f"smp_{sparsity}", ciders[0], method="supermask", sparsity=sparsity)
        finish_run(folder / f"gradual_{sparsity}", ciders[1], method="gradual", sparsity=sparsity)
        ticket = str(folder / f"gradual_{sparsity}")
        finish_run(folder / f"lottery_{sparsity}", ciders[2], method="lottery", sparsity=sparsity, ticket=ticket)
    finish_run(folder / "smp_m1", 0.46, method="supermask", sparsity=0.95, init=1.0)
    return folder
