"""Captioners of regions that find them themselves: photo to caption from one packed file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import laconic
from laconic import store
from laconic.captioner.accounting import caption_operations
from laconic.captioner.packing import load
from laconic.cli import main
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.spec.model import EncoderConfig

DETECTOR = EncoderConfig("picodet_s_416", 64, regions=6)


@pytest.fixture(scope="module")
def files(random_captioner: Callable[..., Path]) -> dict[str, Path]:
    return {name: random_captioner(name, DETECTOR) for name in ("up_down", "object_relation")}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((90, 70)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("name", ["up_down", "object_relation"])
def test_a_photo_is_captioned_from_one_file(files: dict[str, Path], name: str, photo: Path) -> None:
    captioner = laconic.load(files[name], backend="torch")
    decoding = Decoding(beam=2, max_length=6)
    (said,) = captioner.caption([photo], decoding)
    assert said
    features = captioner.encode(captioner.batch([photo]))
    assert features.grid.shape == (1, 6, 384 + 80)
    assert features.boxes[0, 0].tolist() == [0, 0, 1, 1]
    assert caption_operations(captioner).encoder > 1e6
    (given,) = captioner.search(features, decoding)  # as features that are cached
    assert captioner.vocabulary.decode(given[0].tokens) == said


def test_boxes_are_read_by_captioners_that_read_boxes(files: dict[str, Path], photo: Path) -> None:
    captioner, tokens = load(files["object_relation"]), torch.tensor([[[2, 5, 6, 7]]])
    with torch.inference_mode():
        features = captioner.encode(captioner.batch([photo]))
        moved = type(features)(features.grid, features.pooled, features.boxes.flip(1))
        assert not torch.allclose(captioner(features, tokens), captioner(moved, tokens), atol=1e-3)


def test_the_file_says_how_many_regions_and_that_of_other_encoders_does_not(
    files: dict[str, Path], random_captioner: Callable[..., Path]
) -> None:
    config = store.load(files["up_down"]).config
    assert config["model"]["encoder"]["regions"] == 6
    assert config["pixels"]["mean"] == [123.675, 116.28, 103.53]
    other = store.load(random_captioner("up_down", EncoderConfig("vgg_small", 64, 16))).config
    assert "regions" not in other["model"]["encoder"]


def test_the_engine_says_why_it_does_not_run_one(
    files: dict[str, Path], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="'picodet_s_416' has no rules in the engine; run it with backend torch"):
        laconic.load(files["up_down"])
    assert main(["caption", str(files["up_down"]), str(photo)]) == 2
    assert "backend torch" in capsys.readouterr().err
    assert main(["caption", str(files["up_down"]), str(photo), "--backend", "torch"]) == 0
    assert "photo.png" in capsys.readouterr().out
