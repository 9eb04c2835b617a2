"""Segmentation on drawn squares: batches, loss, scores, baselines, folders, and a whole recipe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("transformers")

from laconic import hf
from laconic.errors import ConfigError, DataError
from laconic.metrics.segmentation import VOID
from laconic.recipes.slimming import run_slim
from laconic.tasks.guesses import count_classes
from laconic.tasks.segment import MaskedBatch, Segmentation, open_task, over_scales, sampled
from laconic.tasks.settings import ModelRecipe, Search, Slim, SlimData, SlimRecipe, Stage, TaskOptions, Tower
from laconic.training.settings import Training

MODEL = ModelRecipe(image=32, patch=8, vision=Tower(width=16, layers=1, heads=2))
TRAINING = Training(epochs=1, batch=4, precision="float32", warmup=1)


def draw(root: Path, split: str, count: int) -> None:
    """Roads (class 3) below a sky (0) with a car (8), one row without a class."""
    rng = np.random.default_rng(len(split))
    for folder in ("images", "masks"):
        (root / split / folder).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((24, 40), np.uint8)
        mask[12:] = 3
        left = rng.integers(0, 30)
        mask[8:16, left : left + 10] = 8
        mask[0] = 11
        colours = np.array([[90, 160, 250]] * 3 + [[70, 70, 70]] * 5 + [[250, 20, 20]] + [[0, 0, 0]] * 3, np.uint8)
        Image.fromarray(colours[mask]).save(root / split / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")


@pytest.fixture
def recipe(tmp_path: Path) -> SlimRecipe:
    draw(tmp_path / "data", "train", 8)
    draw(tmp_path / "data", "val", 4)
    return SlimRecipe("segment", MODEL, SlimData("camvid", str(tmp_path / "data")), training=TRAINING)


def opened(recipe: SlimRecipe, tmp_path: Path) -> Segmentation:
    return open_task(recipe, tmp_path / "cache", lambda *_: None)


class Knows(nn.Module):
    """Says of each cell what its colour is: sky is blue, a car red, all else road."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        red, _, blue = nn.functional.avg_pool2d(pixel_values, 4).unbind(1)
        said = torch.full((len(red), 11, *red.shape[1:]), -9.0)
        said[:, 0], said[:, 8], said[:, 3] = 9 * (blue - red), 9 * (red - blue), 2.0
        return said


def test_masks_are_mirrored_with_their_images(recipe: SlimRecipe, tmp_path: Path) -> None:
    task = opened(replace(recipe, training=replace(TRAINING, batch=8)), tmp_path)
    batch: Any = task.batches(0, 0)
    assert batch.count == 8
    assert batch.labels.shape == (8, task.points, task.points)
    coarse = nn.functional.interpolate(batch.pixels, size=batch.labels.shape[1:])
    red = coarse[:, 0] > 0.5
    agree = (red == (batch.labels == 8))[batch.labels != VOID].float().mean()
    assert agree > 0.9
    assert len(np.unique([row.argmax() for row in red.any(1).int().numpy()])) > 1


def test_pixels_without_a_class_do_not_count(recipe: SlimRecipe, tmp_path: Path) -> None:
    task = opened(recipe, tmp_path)
    labels = torch.full((1, task.points, task.points), VOID)
    batch = MaskedBatch(torch.zeros(1, 3, 32, 32), labels)
    outputs = torch.randn(task.cells**2, task.classes)
    assert task.loss(outputs, batch) == 0
    labels[0, 4, 4] = 2
    sharp = outputs.clone()
    sharp[:, 2] = 50
    assert task.loss(sharp, batch) < 1e-6 < task.loss(outputs, batch)


def test_a_net_that_knows_scores_well_and_better_than_all_baselines(recipe: SlimRecipe, tmp_path: Path) -> None:
    task = opened(recipe, tmp_path)
    scores, baselines = task.validate(Knows()), task.baselines()
    assert scores["mean IoU"] > 70
    assert scores["pixel accuracy"] > 90
    assert baselines["chance"] < baselines["no image"] < scores["mean IoU"]
    assert baselines["one class"] < baselines["no image"]


def test_chance_is_what_random_guesses_score(recipe: SlimRecipe, tmp_path: Path) -> None:
    from laconic.metrics.segmentation import confusion, mean_iou

    task = opened(recipe, tmp_path)
    rng, matrix = np.random.default_rng(0), np.zeros((11, 11), np.int64)
    for _ in range(100):
        for row in range(4):
            labels = task.splits["val"].labels(row)
            matrix += confusion(rng.integers(0, 11, labels.shape), labels, 11)
    assert task.baselines()["chance"] == pytest.approx(mean_iou(matrix), rel=0.03)


def test_labels_are_sampled_at_the_middles_of_cells() -> None:
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert sampled(labels, 2).tolist() == [[7, 10], [19, 22]]


def test_several_scales_agree_with_one_where_the_net_does_not_mind_scales() -> None:
    pixels = torch.ones(1, 3, 32, 32) * torch.tensor([-1.0, 0, 1]).view(1, 3, 1, 1)
    said = over_scales(Knows(), pixels, patch=4)
    torch.testing.assert_close(said, Knows()(pixels).softmax(1), atol=1e-5, rtol=1e-4)


def test_a_recipe_from_dense_to_slim(recipe: SlimRecipe, tmp_path: Path) -> None:
    wanted = replace(
        recipe,
        dense=Stage(epochs=1),
        slim=Slim(method="upop", ratio=0.5),
        search=Search(epochs=1),
        options=TaskOptions(multi_scale=True),
    )
    found = run_slim(wanted, tmp_path / "run", tmp_path / "cache")
    assert found["parameters"]["now"] < found["parameters"]["dense"]
    assert set(found["scores"]) == {"mean IoU", "pixel accuracy", "multi-scale mean IoU"}
    net: Any = hf.from_pretrained(tmp_path / "run" / "model")
    assert net.config.id2label[3] == "road"
    again = replace(recipe, model=replace(MODEL, initial=str(tmp_path / "run" / "model")))
    with torch.no_grad():
        scores = opened(again, tmp_path).validate(net)
    assert scores["mean IoU"] == pytest.approx(found["scores"]["mean IoU"], abs=1e-3)


def test_a_mask_that_cannot_be_used_stops_before_training(recipe: SlimRecipe, tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 40), 77, np.uint8)).save(tmp_path / "data" / "val" / "masks" / "3.png")
    with pytest.raises(DataError, match="77"):
        opened(recipe, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": SlimData("voc", "x")}, "one of ade20k, camvid"),
        ({"model": replace(MODEL, image=30)}, "no multiple of model.patch"),
        ({"options": TaskOptions(mixup=0.5)}, "options.mixup"),
        ({"options": TaskOptions(multi_scale=True), "model": replace(MODEL, encoder="mobilenet_v2")}, "multi_scale"),
        ({"model": replace(MODEL, kind="vit")}, "segmenter"),
        ({"model": replace(MODEL, encoder="picodet_s_416", imagenet="x.npz")}, "gives regions"),
    ],
)
def test_what_cannot_be_is_refused(recipe: SlimRecipe, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(replace(recipe, **change), tmp_path)


def test_counts_by_place_tell_progress(recipe: SlimRecipe, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    guesses = count_classes(opened(recipe, tmp_path).splits["val"], lambda *at: seen.append(at))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert guesses.counts[-1, :, 3].tolist() == [4] * 64
