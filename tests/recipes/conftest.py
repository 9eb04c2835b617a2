"""A recipe that trains in a second, and a folder that it has been trained in."""

from pathlib import Path

import pytest

from laconic.decode.search import Decoding
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.recipes.run import run_recipe
from laconic.spec.model import DecoderConfig, EncoderConfig
from laconic.training.settings import Training


@pytest.fixture(scope="session")
def short() -> Recipe:
    """Dense, on features of a frozen encoder."""
    return Recipe(
        data=DataRecipe("scenes", min_count=1, train=48, val=8),
        encoder=EncoderConfig("toy", size=32, stride=16),
        decoder=DecoderConfig(options={"word": 12, "hidden": 16}),
        training=Training(epochs=2, batch=8, learning_rate=5e-3, precision="float32"),
        decoding=Decoding(beam=2),
    )


@pytest.fixture(scope="session")
def trained(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of it; the cache lies beside."""
    folder = tmp_path_factory.mktemp("dense")
    run_recipe(short, folder / "run", folder / "cache")
    return folder / "run"
