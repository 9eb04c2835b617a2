"""Weights behind a finer grid: left out of small files where no word depends on them, and missed where one would."""

from dataclasses import replace

import pytest
import torch

import laconic
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.captioner.unread import clear, lacks_pooled, unread
from laconic.cli import main
from laconic.errors import ConfigError
from laconic.recipes.plan import Place, plan
from laconic.recipes.recipe import DataRecipe, Quantization, Recipe
from laconic.recipes.run import run_recipe
from laconic.spec.encoders import ENCODERS
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary
from laconic.training.distillation import load_teacher
from laconic.training.settings import Distillation, Training

VOCABULARY = Vocabulary((*SPECIALS, "a", "dog", "runs", "cat"))
ENCODER = EncoderConfig("mobilenet_v1_025", size=64, stride=16)
AOANET = DecoderConfig("aoanet", {"width": 8, "heads": 2, "layers": 1})
UP_DOWN = DecoderConfig("up_down", {"word": 4, "hidden": 6, "attention": 3})


def make(encoder: EncoderConfig = ENCODER, decoder: DecoderConfig = AOANET) -> ImageCaptioner:
    torch.manual_seed(0)
    captioner = ImageCaptioner(ModelConfig(encoder, decoder), VOCABULARY).eval()
    with torch.no_grad():
        for name, weight in captioner.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    return captioner


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", [name for name, facts in ENCODERS.items() if not facts.detects])
def test_what_is_unread_has_no_gradient_and_all_else_has(name, norm):
    captioner = make(EncoderConfig(name, size=64, stride=16, norm=norm))
    grid = captioner.encode(pixels()).grid
    grid.sum().backward()
    expected = [key for key, weight in captioner.encoder.named_parameters() if weight.grad is None]
    assert unread(captioner) == [f"encoder.{key}" for key in expected]
    assert expected or name in ("vgg_small", "convnet", "toy")


def test_all_is_read_of_the_coarse_grid_with_the_pooled_feature_and_of_detectors():
    assert unread(make(replace(ENCODER, stride=32))) == []
    assert unread(make(decoder=UP_DOWN)) == []
    assert unread(make(EncoderConfig("picodet_s_416", size=64, stride=16, regions=4))) == []
    assert not lacks_pooled(make(decoder=UP_DOWN))


@pytest.mark.parametrize("norm", [False, True])
def test_small_files_leave_them_out_and_exact_ones_keep_them(norm, tmp_path):
    captioner = make(replace(ENCODER, norm=norm))
    save(captioner, tmp_path / "exact", "exact")
    size = save(captioner, tmp_path / "half", "half")
    whole = save(make(replace(ENCODER, stride=32, norm=norm)), tmp_path / "coarse", "half")
    exact, half = load(tmp_path / "exact"), load(tmp_path / "half")
    behind = sum(exact.get_parameter(name).numel() for name in unread(exact))
    assert size < whole - 1.6 * behind  # entropy coded, a random float16 takes 1.7 bytes
    assert lacks_pooled(half)
    assert not lacks_pooled(exact)
    assert not lacks_pooled(captioner)
    with torch.no_grad():
        before = exact.encode(pixels()).grid
        torch.testing.assert_close(half.encode(pixels()).grid, before, rtol=1e-2, atol=1e-2)
        clear(exact, unread(exact))
        assert torch.equal(exact.encode(pixels()).grid, before)


def test_the_engine_says_what_pytorch_says_of_such_a_file(tmp_path):
    save(make(), tmp_path / "half.safetensors", "half")
    photos = list(pixels().numpy())
    said = [laconic.load(tmp_path / "half.safetensors", backend=b).caption(photos) for b in ("engine", "torch")]
    assert said[0] == said[1]


RECIPE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=24, val=4),
    encoder=ENCODER,
    decoder=AOANET,
    training=Training(epochs=1, batch=8, learning_rate=5e-3, precision="float32", mirror=False),
)


def test_runs_that_go_on_with_such_a_file(tmp_path):
    """Trained in few bits or calibrated, it lacks them; a captioner of its kind does without, in training, too."""
    bits = replace(RECIPE, quantization=Quantization(bits=4, where="all"))
    result = run_recipe(bits, tmp_path / "first", tmp_path / "cache")
    file = tmp_path / "first" / "model.safetensors"
    first = load(file)
    assert lacks_pooled(first)
    behind = sum(first.get_parameter(name).numel() for name in unread(first))
    assert result["non_zeros"]["encoder"] <= result["non_zeros"]["encoder_weights"] - behind
    run_recipe(RECIPE, tmp_path / "dense", tmp_path / "cache")
    assert main(["pack", str(tmp_path / "dense"), "-o", str(tmp_path / "fine.safetensors"), "--values", "fine"]) == 0
    assert lacks_pooled(load(tmp_path / "fine.safetensors"))
    assert not lacks_pooled(load(tmp_path / "dense" / "model.safetensors"))
    assert main(["pack", str(tmp_path / "dense"), "-o", str(tmp_path / "half.safetensors")]) == 0
    assert lacks_pooled(load(tmp_path / "half.safetensors"))
    tuned = replace(RECIPE.training, encoder_learning_rate=1e-3)
    plan(
        replace(RECIPE, initial=str(tmp_path / "half.safetensors"), training=tuned),
        Place(tmp_path / "second", tmp_path / "cache"),
    )
    load_teacher(Distillation(str(file)), first, reads_features=True)
    with pytest.raises(
        ConfigError, match=r"reads the grid alone, and what was behind it was left out in packing; up_down reads it"
    ):
        plan(replace(RECIPE, encoder_from=str(file), decoder=UP_DOWN), Place(tmp_path / "third", tmp_path / "cache"))


def test_a_frozen_encoder_teaches_from_a_file_that_lacks_them(tmp_path):
    student = make()
    save(student, tmp_path / "half.safetensors", "half")
    assert load_teacher(Distillation(str(tmp_path / "half.safetensors")), student, reads_features=True) is not None
    with torch.no_grad():
        next(student.encoder.parameters()).mul_(1.1)
    with pytest.raises(ConfigError, match="other weights than the recipe's frozen one"):
        load_teacher(Distillation(str(tmp_path / "half.safetensors")), student, reads_features=True)
