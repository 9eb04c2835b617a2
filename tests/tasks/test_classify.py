"""Classification of coloured squares: mixing, scores, baselines, folders, and a whole recipe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("transformers")

from laconic import hf
from laconic.errors import ConfigError
from laconic.recipes.slimming import run_slim
from laconic.tasks.classify import Classification, ImageBatch, open_task
from laconic.tasks.mixing import cutmix, mix, mixup, one_hot
from laconic.tasks.settings import ModelRecipe, Search, Slim, SlimData, SlimRecipe, Stage, TaskOptions, Tower
from laconic.training.settings import Training

MODEL = ModelRecipe(image=16, patch=8, vision=Tower(width=16, layers=1, heads=2))
TRAINING = Training(epochs=1, batch=4, precision="float32", warmup=1)
COUNTS = {"blue": 3, "green": 3, "red": 6}


@pytest.fixture
def recipe(tmp_path: Path) -> SlimRecipe:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for channel, (name, count) in enumerate(COUNTS.items()):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 90, (16, 16, 3)).astype(np.uint8)
                image[..., 2 - channel] += 150
                Image.fromarray(image).save(tmp_path / "data" / split / name / f"{number}.png")
    return SlimRecipe("classify", MODEL, SlimData("class_folders", str(tmp_path / "data")), training=TRAINING)


def opened(recipe: SlimRecipe, tmp_path: Path) -> Classification:
    return open_task(recipe, tmp_path / "cache", lambda *_: None)


@pytest.mark.parametrize("by", [mixup, cutmix])
def test_targets_share_as_the_images_do(by: Any) -> None:
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    for seed in range(20):
        mixed, targets = by(images, one_hot(np.array([0, 1]), 2), 1.0, np.random.default_rng(seed))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
        torch.testing.assert_close(targets.sum(1), torch.ones(2))


def test_one_of_both_is_drawn_and_without_alpha_nothing_is_mixed() -> None:
    images, targets = torch.rand(4, 1, 8, 8), one_hot(np.arange(4), 4)
    assert mix(images, targets, 0, 0, np.random.default_rng(0)) == (images, targets)
    whole = []
    for seed in range(20):
        mixed, _ = mix(images, targets, 1.0, 1.0, np.random.default_rng(seed))
        whole.append(bool((mixed == images).float().mean() > 0.01))  # CutMix leaves pixels as they are
    assert 0 < sum(whole) < 20


def test_the_loss_falls_and_the_task_is_learned(recipe: SlimRecipe, tmp_path: Path) -> None:
    task = opened(recipe, tmp_path)
    optimizer = torch.optim.AdamW(task.net.parameters(), 3e-3)
    task.net.train()
    for step in range(60):
        batch = task.batches(step // 3, step % 3)
        optimizer.zero_grad()
        task.loss(task.outputs(task.net, batch), batch).backward()
        optimizer.step()
    with torch.no_grad():
        scores = task.validate(task.net.eval())
    assert scores["accuracy"] > task.baselines()["no image"] == 50
    assert task.baselines()["chance"] == pytest.approx(100 / 3)


def test_smoothing_raises_the_least_loss(recipe: SlimRecipe, tmp_path: Path) -> None:
    batch = ImageBatch(torch.zeros(2, 3, 16, 16), one_hot(np.array([0, 1]), 3))
    sure = 30 * batch.targets
    plain = opened(recipe, tmp_path).loss(sure, batch)
    smooth = opened(replace(recipe, training=replace(TRAINING, label_smoothing=0.1)), tmp_path).loss(sure, batch)
    assert plain < 1e-6
    torch.testing.assert_close(smooth, torch.tensor(30 * 0.1 * 2 / 3))


def test_few_examples_are_of_all_classes(recipe: SlimRecipe, tmp_path: Path) -> None:
    task = opened(replace(recipe, data=replace(recipe.data, train=6)), tmp_path)
    assert sorted(task.splits["train"].labels) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_a_recipe_from_dense_to_slim(recipe: SlimRecipe, tmp_path: Path, kind: str) -> None:
    wanted = replace(
        recipe,
        model=replace(MODEL, kind=kind),
        dense=Stage(epochs=1),
        slim=Slim(method="upop", ratio=0.5),
        search=Search(epochs=1),
        options=TaskOptions(mixup=0.8, cutmix=1.0),
    )
    found = run_slim(wanted, tmp_path / "run", tmp_path / "cache")
    assert found["parameters"]["now"] < found["parameters"]["dense"]
    net: Any = hf.from_pretrained(tmp_path / "run" / "model")
    assert net.config.id2label == {0: "blue", 1: "green", 2: "red"}
    task = opened(replace(recipe, model=replace(MODEL, initial=str(tmp_path / "run" / "model"))), tmp_path)
    with torch.no_grad():
        assert task.validate(net)["accuracy"] == pytest.approx(found["scores"]["accuracy"])


def test_other_classes_and_data_are_refused(recipe: SlimRecipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_folders"):
        opened(replace(recipe, data=SlimData("imagenet", "x")), tmp_path)
    with pytest.raises(ConfigError, match=r"options\.queue"):
        opened(replace(recipe, options=TaskOptions(queue=9)), tmp_path)
    opened(recipe, tmp_path).save(opened(recipe, tmp_path).net, tmp_path / "three")
    for split in ("train", "val"):
        (tmp_path / "data" / split / "violet").mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / split / "violet" / "0.png")
    with pytest.raises(ConfigError, match="has 3 classes and the data 4"):
        opened(replace(recipe, model=replace(MODEL, initial=str(tmp_path / "three"))), tmp_path)
