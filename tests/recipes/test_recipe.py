"""Recipes as values: what is refused before anything is read, and every recipe of the repository."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from laconic.config import from_mapping, read_toml, to_mapping
from laconic.decode.search import MOST_TOKENS
from laconic.errors import ConfigError
from laconic.recipes.plan import check
from laconic.recipes.recipe import CUBIC, FLAT, DataRecipe, Pruning, Recipe
from laconic.spec.model import EncoderConfig
from laconic.training.settings import Training

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("key", [*FLAT, *CUBIC])
def test_an_option_in_its_old_place_is_refused_with_the_new_one(key, tmp_path):
    (tmp_path / "old.toml").write_text(f'[pruning]\nmethod = "supermask"\n{key} = 1\n')
    place = f"schedule.{key}" if key in CUBIC else key
    with pytest.raises(ConfigError, match=rf"old\.toml: pruning\.{key} is now pruning\.options\.{place}$"):
        read_toml(tmp_path / "old.toml", Recipe)


def test_options_of_no_method_are_refused():
    with pytest.raises(ConfigError, match=r"pruning\.options\.sparsity = 0\.5, but nothing is pruned: name a "):
        Pruning(options={"sparsity": 0.5})


def test_batch_norms_of_a_packed_captioner_are_not_trained_on():
    """Its file has them folded: said before a study trains the run that makes it."""
    with pytest.raises(ConfigError, match=r"set encoder\.norm = false beside initial"):
        Recipe(encoder=EncoderConfig(norm=True), initial="runs/dense/model.safetensors")


@pytest.mark.parametrize("length", [0, MOST_TOKENS + 1, 10**11])
def test_captions_have_a_longest_length(length):
    with pytest.raises(ConfigError, match=rf"data\.max_length is {length}, must be from 1 to {MOST_TOKENS}"):
        DataRecipe(max_length=length)


def test_region_features_and_photos_exclude_each_other():
    data = DataRecipe("scenes", regions="somewhere")
    recipe = Recipe(data, EncoderConfig("regions", channels=6), training=Training(mirror=False))
    with pytest.raises(ConfigError, match="cannot be mirrored"):
        replace(recipe, training=replace(recipe.training, mirror=True))
    with pytest.raises(ConfigError, match=r"needs data\.regions"):
        replace(recipe, data=replace(data, regions=""))
    with pytest.raises(ConfigError, match=r"data\.train = -5; give at least 0"):
        replace(data, train=-5)


def test_scst_from_scratch_is_refused():
    with pytest.raises(ConfigError, match="give its packed file as initial"):
        Recipe(objective="scst")


def test_recipes_studies_and_folders_are_read_without_torch():
    read = "from laconic.recipes import folders, methods, older, recipe, study"
    code = f"{read}; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_possible(path):
    recipe = read_toml(path, Recipe)
    assert from_mapping(json.loads(json.dumps(to_mapping(recipe))), Recipe, "") == recipe
    check(recipe, str(path))
