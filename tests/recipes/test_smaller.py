"""Recipes that spell words by digits, and that begin with the weights of a larger captioner."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from laconic import store
from laconic.captioner.captioning import evaluate
from laconic.captioner.engine import Engine
from laconic.captioner.packing import load
from laconic.errors import ConfigError
from laconic.recipes.plan import build
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.recipes.run import run_recipe
from laconic.recipes.splits import splits
from laconic.recipes.study import read_study
from laconic.spec.model import DecoderConfig
from laconic.training.settings import Distillation, Scst


def spelling(recipe: Recipe) -> Recipe:
    return replace(recipe, data=replace(recipe.data, radix=16))


def test_a_captioner_that_spells_is_trained_packed_and_read_by_the_engine(short: Recipe, tmp_path: Path) -> None:
    result = run_recipe(spelling(short), tmp_path / "run", tmp_path / "cache")
    packed = store.load(tmp_path / "run/model.safetensors")
    assert packed.entries["decoder.output.weight"].shape[0] == 20
    assert result["scores"]["CIDEr"] >= 0
    captioner, engine = load(tmp_path / "run/model.safetensors"), Engine.load(tmp_path / "run/model.safetensors")
    _, val = splits(short.data)
    scores, said, _ = evaluate(engine, val, short.decoding)
    assert said == evaluate(captioner, val, short.decoding)[1]
    assert scores["CIDEr"] == pytest.approx(result["scores"]["CIDEr"])
    assert any(said.values())
    again = replace(spelling(short), initial=str(tmp_path / "run/model.safetensors"))
    train, _ = splits(again.data)
    assert build(again, train).vocabulary.base == 16
    with pytest.raises(ConfigError, match=r"data\.radix = 16"):
        build(replace(again, data=short.data), train)


def test_rewards_and_teachers_of_one_that_spells(short: Recipe, tmp_path: Path) -> None:
    """Self-critical rewards are of words; captions that a teacher writes are words, too."""
    run_recipe(spelling(short), tmp_path / "run", tmp_path / "cache")
    model = str(tmp_path / "run/model.safetensors")
    one = replace(short.training, epochs=1)
    rewarded = replace(
        spelling(short), initial=model, objective="scst", scst=Scst(samples=2, max_length=8), training=one
    )
    assert run_recipe(rewarded, tmp_path / "rewarded", tmp_path / "cache")["scores"]["CIDEr"] >= 0
    taught = replace(spelling(short), training=one, distillation=Distillation(model, sequences=1, choice="nearest"))
    assert run_recipe(taught, tmp_path / "taught", tmp_path / "cache")["scores"]["CIDEr"] >= 0


def test_a_smaller_captioner_begins_with_a_larger_one(short: Recipe, trained: Path, tmp_path: Path) -> None:
    decoder = DecoderConfig(options={"word": 8, "hidden": 12, "rank": 6})
    smaller = replace(short, decoder=decoder, inherit=str(trained / "model.safetensors"))
    train, _ = splits(short.data)
    began, larger = build(smaller, train), load(trained / "model.safetensors")
    for name, weight in larger.encoder.state_dict().items():
        assert torch.equal(began.encoder.state_dict()[name], weight)
    assert began.vocabulary == larger.vocabulary
    result = run_recipe(smaller, tmp_path / "run", trained.parent / "cache")
    assert result["non_zeros"]["decoder_weights"] < sum(p.numel() for p in larger.decoder.parameters())
    with pytest.raises(ConfigError, match="give one of them"):
        replace(smaller, initial=smaller.inherit)


@pytest.mark.parametrize("key", ["inherit", "encoder_from"])
def test_a_study_trains_the_larger_one_first(key: str, tmp_path: Path) -> None:
    text = f"""
    [base.data]
    name = "scenes"
    [[run]]
    name = "small"
    {key} = "{{runs}}/large"
    decoder.options = {{ rank = 8 }}
    [[run]]
    name = "large"
    """
    (tmp_path / "study.toml").write_text(text)
    runs = read_study(tmp_path / "study.toml", tmp_path / "runs")
    assert [run.name for run in runs] == ["large", "small"]
    assert getattr(runs[1].recipe, key) == str(tmp_path / "runs/large/model.safetensors")


@pytest.mark.parametrize("radix", [-1, 15, 10**6])
def test_bases_that_cannot_be(radix: int) -> None:
    with pytest.raises(ConfigError, match=r"data\.radix"):
        DataRecipe("scenes", radix=radix)
