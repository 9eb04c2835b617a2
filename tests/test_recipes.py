"""Recipes from start to end on generated scenes; who may use a folder; every recipe of the repository."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laconic import recipes, store
from laconic.captioner import DecoderConfig, EncoderConfig, load
from laconic.config import read_toml, to_mapping
from laconic.decode import Decoding
from laconic.errors import ConfigError, PruningError, TrainingError
from laconic.recipes import DataRecipe, Pruning, Recipe, Watcher, build, claim, run, splits
from laconic.train import Training

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))

DENSE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=48, val=8),
    encoder=EncoderConfig("mobilenet_v1_025", size=32, stride=16, norm=True),
    decoder=DecoderConfig(options={"word": 12, "hidden": 16}),
    training=Training(
        epochs=3, batch=8, learning_rate=5e-3, encoder_learning_rate=1e-3, precision="float32", mirror=False
    ),
    decoding=Decoding(beam=2),
)
PRUNED = replace(DENSE, pruning=Pruning("supermask", 0.8, "all"))
FROZEN = replace(
    DENSE,
    encoder=replace(DENSE.encoder, norm=False),
    training=replace(DENSE.training, encoder_learning_rate=0.0, mirror=True),
    pruning=Pruning("supermask", 0.7, "decoder"),
)


@pytest.fixture(scope="module", params=[DENSE, PRUNED, FROZEN], ids=["dense", "all", "decoder"])
def finished(request, tmp_path_factory):
    """Recipe, folder and result of a run."""
    folder = tmp_path_factory.mktemp("run") / "deep" / "er"
    return request.param, folder, run(request.param, folder, folder.parent / "cache")


def test_a_finished_run_leaves_model_scores_and_captions(finished):
    _, folder, result = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "captions.json",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
        "result.json",
    ]
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert {"Bleu_4", "ROUGE_L", "CIDEr"} <= result["scores"].keys()
    captions = json.loads((folder / "captions.json").read_text())
    assert [row["image_id"] for row in captions] == list(range(8))
    assert result["skipped"] == []


def test_the_file_captions_as_the_run_did(finished):
    recipe, folder, _ = finished
    captioner = load(folder / "model.safetensors")
    _, val = splits(recipe.data)
    found = captioner.caption([val[i].pixels() for i in range(8)], recipe.decoding)
    captions = [row["caption"] for row in json.loads((folder / "captions.json").read_text())]
    if recipe is FROZEN:  # cached features are float16
        assert np.mean([a == b for a, b in zip(found, captions, strict=True)]) > 0.7
    else:
        assert found == captions


def test_non_zeros_are_those_of_the_file_and_exact(finished):
    recipe, folder, result = finished
    counts = result["non_zeros"]
    entries = store.load(folder / "model.safetensors").entries.values()
    for part in ("encoder", "decoder"):
        some = [entry for entry in entries if entry.name.startswith(f"{part}.")]
        assert counts[part] == sum(entry.non_zeros for entry in some)
        assert counts[f"{part}_weights"] == sum(int(np.prod(entry.shape)) for entry in some)
    assert result["bytes"] == (folder / "model.safetensors").stat().st_size
    parts = {"none": (), "all": ("encoder.", "decoder."), "decoder": ("decoder.",)}
    pruned = parts[recipe.pruning.where if recipe.pruning.method != "none" else "none"]
    masked = [entry for entry in entries if len(entry.shape) >= 2 and entry.name.startswith(pruned or ("-",))]
    total = sum(int(np.prod(entry.shape)) for entry in masked)
    kept = sum(entry.non_zeros for entry in masked)
    assert kept == total - int(recipe.pruning.sparsity * total)


def test_a_finished_run_is_not_repeated(finished, monkeypatch):
    recipe, folder, result = finished
    monkeypatch.setattr(recipes, "build", None)
    said: list[str] = []
    for resume in (False, True):
        again = run(recipe, folder, folder.parent / "cache", resume=resume, watch=Watcher(say=said.append))
        assert again == json.loads(json.dumps(result))
    assert said == [f"{folder} is finished; nothing to do"] * 2


def test_another_recipe_may_not_use_the_folder(finished):
    recipe, folder, _ = finished
    other = replace(recipe, training=replace(recipe.training, epochs=4, seed=9))
    with pytest.raises(TrainingError, match=r"training\.epochs: 3 -> 4; training\.seed: 1 -> 9"):
        run(other, folder, folder.parent / "cache")


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("recipe", [PRUNED, FROZEN], ids=["all", "decoder"])
def test_an_interrupted_run_needs_resume_and_ends_the_same(recipe, tmp_path, monkeypatch):
    expected = run(recipe, tmp_path / "whole", tmp_path / "cache")
    original, calls = recipes.Run._train_step, []

    def stopping(self, epoch, position):
        calls.append((epoch, position))
        if len(calls) == 10:
            raise Stopped
        return original(self, epoch, position)

    with monkeypatch.context() as stops:
        stops.setattr(recipes.Run, "_train_step", stopping)
        with pytest.raises(Stopped):
            run(recipe, tmp_path / "parts", tmp_path / "cache")
    with pytest.raises(TrainingError, match="unfinished run; continue it with --resume"):
        run(recipe, tmp_path / "parts", tmp_path / "cache")
    torch.manual_seed(99)
    found = run(recipe, tmp_path / "parts", tmp_path / "cache", resume=True)
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert a == b


def test_resume_of_nothing_starts(tmp_path):
    assert claim(tmp_path / "fresh", DENSE, resume=True) is None
    assert json.loads((tmp_path / "fresh" / "recipe.json").read_text())["data"]["name"] == "scenes"


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
@pytest.mark.parametrize("name", ["recipe.json", "result.json"])
def test_a_damaged_folder_is_named(name, text, tmp_path):
    claim(tmp_path, DENSE, resume=False)
    (tmp_path / name).write_text(text)
    with pytest.raises(TrainingError, match="damaged run"):
        claim(tmp_path, DENSE, resume=True)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        claim(tmp_path / "file" / "run", DENSE, resume=False)


# Starting from a packed captioner


def test_initial_weights_are_taken_over_and_must_fit(finished):
    recipe, folder, _ = finished
    path = str(folder / "model.safetensors")
    folded = replace(recipe, initial=path, encoder=replace(recipe.encoder, norm=False))
    train, _ = splits(recipe.data)
    found, packed = build(folded, train), load(Path(path))
    assert found.vocabulary == packed.vocabulary
    for name, tensor in packed.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    with pytest.raises(ConfigError, match=r"has encoder.*stride=16.*asks for.*stride=32"):
        build(replace(folded, encoder=replace(folded.encoder, stride=32)), train)
    with pytest.raises(ConfigError, match=r"has decoder.*asks for"):
        build(replace(folded, decoder=DecoderConfig(options={"word": 12, "hidden": 17})), train)


def test_pruning_a_frozen_encoder_is_refused(tmp_path):
    recipe = replace(FROZEN, pruning=Pruning("supermask", 0.5, "encoder"))
    with pytest.raises(PruningError, match="no weight to prune"):
        run(recipe, tmp_path / "run", tmp_path / "cache")


# Recipes of the repository


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse_and_build(path):
    recipe = read_toml(path, Recipe)
    assert read_toml(path, Recipe) == recipe
    json.dumps(to_mapping(recipe))
    tiny = replace(recipe, initial="", imagenet="", data=DataRecipe("scenes", min_count=1, train=4))
    captioner = build(tiny, splits(tiny.data)[0])
    if recipe.pruning.where == "decoder":
        pruner = recipes.make_pruner(captioner, recipe.pruning, 10)
        assert pruner is None or all(name.startswith("decoder.") for name in pruner.masks())
