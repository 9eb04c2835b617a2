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
from laconic.recipes.plan import check, encoder_changes
from laconic.recipes.recipe import CUBIC, FLAT, DataRecipe, Pruning, Quantization, Recipe
from laconic.spec.model import EncoderConfig
from laconic.training.settings import Scst, Training

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


def test_what_nothing_would_read_is_refused():
    with pytest.raises(ConfigError, match=r'pruning\.freeze = "encoder", but nothing is pruned'):
        Pruning(freeze="encoder")
    with pytest.raises(ConfigError, match=r"give quantization\.bits"):
        Quantization(start=0.25)
    with pytest.raises(ConfigError, match='set objective = "scst"'):
        Recipe(scst=Scst(samples=3))


def test_batch_norms_of_a_packed_captioner_are_not_trained_on():
    """Its file has them folded: said before a study trains the run that makes it."""
    with pytest.raises(ConfigError, match=r"set encoder\.norm = false beside initial"):
        Recipe(encoder=EncoderConfig(norm=True), initial="runs/dense/model.safetensors")


def test_a_captioner_begins_with_one_other() -> None:
    with pytest.raises(ConfigError, match="initial and encoder_from each say what to begin with; give one of them"):
        Recipe(initial="one", encoder_from="other")


@pytest.mark.parametrize("length", [0, MOST_TOKENS + 1, 10**11])
def test_captions_have_a_longest_length(length):
    with pytest.raises(ConfigError, match=rf"data\.max_length is {length}, must be from 1 to {MOST_TOKENS}"):
        DataRecipe(max_length=length)


def test_region_features_and_photos_exclude_each_other():
    data = DataRecipe("scenes", regions="somewhere")
    recipe = Recipe(data, EncoderConfig("regions", channels=6), training=Training(mirror=False))
    with pytest.raises(ConfigError, match="cannot be mirrored"):
        replace(recipe, training=replace(recipe.training, mirror=True))
    with pytest.raises(ConfigError, match=r"set training\.encoder_learning_rate = 0"):
        replace(recipe, training=replace(recipe.training, encoder_learning_rate=1e-4))
    with pytest.raises(ConfigError, match="leave encoder_from out"):
        replace(recipe, encoder_from="runs/dense")
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


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"bits": 1}, r"quantization: bits = 1 for all: give 2 to 8, or 0"),
        ({"bits": 16}, r"quantization: bits = 16 for all: give 2 to 8, or 0"),
        ({"bits": 4.0}, r"bits = 4\.0; expected int"),
        ({"parts": {"encoder": "8"}}, r"quantization: bits = '8' for encoder: give 2 to 8"),
        ({"parts": {"head": 8}}, r"quantization\.parts: 'head' begins with neither encoder nor decoder"),
        ({"parts": {"": 8}}, r"quantization\.parts: '' begins with neither"),
        ({"parts": {"decoder": {"output": 3}}}, r'write a name with dots in quotes: parts\."decoder\.output" = '),
        ({"bits": 4, "start": 1.0}, r"quantization\.start = 1\.0; give 0 <= start < 1"),
        ({"bits": 4, "where": "both"}, r"where = 'both'; choose one of 'all', 'encoder', 'decoder'"),
    ],
)
def test_quantisation_that_is_not_possible_is_refused_by_key(table, says):
    with pytest.raises(ConfigError, match=says):
        from_mapping({"quantization": table}, Recipe, "x")


def test_the_table_of_bits_by_part():
    assert Quantization().table == Quantization(parts={"decoder": 0}).table == {}
    assert Quantization(4).table == {"decoder": 4}
    assert Quantization(4, "all", {"encoder": 8, "decoder.output": 3}).table == {
        "encoder": 8,
        "decoder": 4,
        "decoder.output": 3,
    }
    assert Quantization(parts={"encoder.head": 4}).reaches("encoder")
    assert not Quantization(4, parts={"encoder": 0}).reaches("encoder")
    assert not Quantization(4, "encoder").reaches("decoder")


def test_a_quantised_encoder_has_neither_batch_norms_nor_a_detector_in_its_place():
    with pytest.raises(ConfigError, match=r"set encoder\.norm = false"):
        Recipe(encoder=EncoderConfig(norm=True), quantization=Quantization(4, "all"))
    Recipe(encoder=EncoderConfig(norm=True), quantization=Quantization(4))
    with pytest.raises(ConfigError, match="quantise the decoder alone"):
        Recipe(
            DataRecipe(regions="x"),
            EncoderConfig("regions", channels=6),
            quantization=Quantization(4, "all"),
            training=Training(mirror=False),
        )


def test_a_part_that_the_captioner_does_not_have_is_found_before_anything_is_read():
    recipe = Recipe(DataRecipe("scenes"), quantization=Quantization(4, parts={"decoder.heads": 8}))
    with pytest.raises(ConfigError, match=r"^here: bits: no weight's name begins with 'decoder\.heads'; there are "):
        check(recipe, "here")
    check(replace(recipe, quantization=Quantization(4, "all", {"decoder.output": 3})), "here")


def test_a_frozen_encoder_that_is_quantised_changes_what_the_decoder_reads():
    for quantization, changes in ((Quantization(4), False), (Quantization(4, "all"), True)):
        assert encoder_changes(Recipe(quantization=quantization), None) is changes
