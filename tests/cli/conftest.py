"""A tiny captioner and photos for it, for the verbs that caption."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import save
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("toy", 32, 16), DecoderConfig(options={"word": 4, "hidden": 8}))
    path = tmp_path_factory.mktemp("packed") / "tiny.safetensors"
    save(ImageCaptioner(config, Vocabulary.build(["a dog runs", "a boat"], 1)), path)
    return path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{seed}.png")
    return Path("photos")
