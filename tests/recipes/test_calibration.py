"""Calibration of a captioner, from a run's training data or its own captions: finer where it counts, file and all."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import laconic
from laconic import data, store
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.cli import main
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.config import to_mapping
from laconic.data.regions import Regions, write_regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError
from laconic.models.captioners import CAPTIONERS
from laconic.recipes.calibration import (
    Batch,
    calibrate,
    hold_captions,
    named_batches,
    own_batches,
    training_batches,
)
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.spec.model import REGIONS, DecoderConfig, EncoderConfig, ModelConfig
from laconic.store.values import VALUES
from laconic.text import BOS, EOS, Vocabulary

SCENES = data.load("scenes", None, "train")
CONFIG = ModelConfig(EncoderConfig("toy", 64, 16), DecoderConfig(options={"word": 12, "hidden": 24}))


def captioner_of(config: ModelConfig, seed: int = 0) -> ImageCaptioner:
    """Weights of no training, spread so that pictures matter; most of the decoder's are pruned."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary.build((text for i in range(64) for text in SCENES[i].captions), 1)
    made = ImageCaptioner(config, vocabulary).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("decoder") and parameter.ndim > 1:
                parameter.mul_(3 * (torch.rand_like(parameter) < 0.3))
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def captioner() -> ImageCaptioner:
    return captioner_of(CONFIG)


@pytest.fixture
def run(captioner: ImageCaptioner, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    folder = tmp_path / "run"
    folder.mkdir()
    recipe = Recipe(DataRecipe("scenes", min_count=1, train=40), CONFIG.encoder, decoder=CONFIG.decoder)
    (folder / "recipe.json").write_text(json.dumps(to_mapping(recipe)))
    save(copy.deepcopy(captioner), folder / "model.safetensors", "exact", scores={"CIDEr": 0.5})
    return folder


def distance(one: ImageCaptioner, other: ImageCaptioner, batches: list[Batch]) -> float:
    with torch.no_grad():
        a, b = (torch.cat([model(*batch) for batch in batches]) for model in (one, other))
    a, b = (y - y.mean(-1, keepdim=True) for y in (a, b))
    return float((a - b).norm() / a.norm())


def test_training_batches_are_spread_over_the_images_of_the_recipe(captioner: ImageCaptioner, run: Path) -> None:
    batches = training_batches(captioner, run, 10)
    assert [len(images) for images, _ in batches] == [8, 2]
    shown = torch.cat([images for images, _ in batches]).numpy()
    wanted = [data.resize(SCENES[4 * i].pixels(), 64) for i in range(10)]
    assert np.array_equal(shown, wanted)
    first = [captioner.vocabulary.encode(text, 20) for text in SCENES[0].captions]
    assert [[t for t in row if t] for row in batches[0][1][0].tolist() if any(row)] == first
    assert sum(len(images) for images, _ in training_batches(captioner, run, 1000)) == 40


def test_own_captions_are_what_greedy_search_says(captioner: ImageCaptioner) -> None:
    images = [SCENES[i].pixels() for i in range(3)]
    ((inputs, tokens),) = own_batches(captioner, images)
    assert len(inputs) == len(tokens) == 3
    for row, best in zip(tokens[:, 0].tolist(), captioner.search(inputs, Decoding(1)), strict=True):
        said = [token for token in row if token]
        assert said == [BOS, *best[0].tokens, *([EOS] if best[0].finished else [])]


def test_own_captions_can_be_held() -> None:
    """By the output's biases alone, in whole steps, and on the grid of the file."""
    captioner = captioner_of(replace(CONFIG, encoder=EncoderConfig("convnet", 64, 16)))  # the toy's are too much alike
    images = [SCENES[i].pixels() for i in range(12)]
    batches = own_batches(captioner, images)
    rounded = copy.deepcopy(captioner)
    steps = calibrate(rounded, "compact", batches)
    said = captioner.caption(images, Decoding(1))
    assert rounded.caption(images, Decoding(1)) != said
    before = copy.deepcopy(rounded)
    assert hold_captions(rounded, batches, steps)
    assert rounded.caption(images, Decoding(1)) == said
    moved = [n for n, p in rounded.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert moved == ["decoder.output.bias"]
    codes = rounded.get_parameter(moved[0]) / steps[moved[0]]
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)


def test_captions_that_cannot_be_held_leave_everything_as_it_was(captioner: ImageCaptioner) -> None:
    """Of one image two captions that begin differently: one of them must lose."""
    inputs = captioner.batch([SCENES[0].pixels()])
    impossible = [(inputs, torch.tensor([[[BOS, 5, EOS], [BOS, 6, EOS]]]))]
    rounded = copy.deepcopy(captioner)
    steps = calibrate(rounded, "compact", own_batches(captioner, [SCENES[0].pixels()]))
    before = rounded.get_parameter("decoder.output.bias").clone()
    assert not hold_captions(rounded, impossible, steps)
    assert torch.equal(rounded.get_parameter("decoder.output.bias"), before)
    assert not hold_captions(rounded, impossible, {})


@pytest.mark.parametrize("values", ["fine", "compact"])
def test_calibrated_is_nearer_and_smaller_than_plain(
    captioner: ImageCaptioner, run: Path, tmp_path: Path, values: str
) -> None:
    calibrated, plain = copy.deepcopy(captioner), copy.deepcopy(captioner)
    steps = calibrate(calibrated, values, training_batches(captioner, run, 24))
    size = save(calibrated, tmp_path / "calibrated", values, steps=steps)
    plain_size = save(plain, tmp_path / "plain", values)
    back, plain_back = load(tmp_path / "calibrated"), load(tmp_path / "plain")
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), calibrated.parameters(), strict=True))
    others = own_batches(captioner, [SCENES[i].pixels() for i in range(50, 60)])
    error = distance(captioner, back, others)
    assert error < 2 * (VALUES[values].pixel_error or VALUES[values].error)
    assert error < distance(captioner, plain_back, others) / 2 or size < plain_size / 1.1


OPTIONS = {
    "soft_attention": {"word": 8, "hidden": 8},
    "up_down": {"word": 8, "hidden": 8, "attention": 4},
    "object_relation": {"layers": 1, "heads": 2, "width": 8, "feed_forward": 8},
    "aoanet": {"layers": 1, "heads": 2, "width": 8},
}


@pytest.mark.parametrize("name", CAPTIONERS)
@pytest.mark.parametrize("values", ["fine", "compact"])
def test_every_captioner_is_saved_as_it_was_calibrated(name: str, values: str, tmp_path: Path) -> None:
    captioner = captioner_of(ModelConfig(CONFIG.encoder, DecoderConfig(name, OPTIONS[name])))
    steps = calibrate(captioner, values, own_batches(captioner, [SCENES[i].pixels() for i in range(3)]))
    before = copy.deepcopy(captioner.state_dict())
    save(captioner, tmp_path / "file", values, steps=steps)
    back = load(tmp_path / "file").state_dict()
    assert steps
    for weight in steps:
        torch.testing.assert_close(back[weight], before[weight], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "encoder", ["toy", pytest.param("efficientnet_lite0", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_a_pruned_encoder_is_calibrated_and_the_engine_says_what_torch_says(encoder: str, tmp_path: Path) -> None:
    captioner = captioner_of(replace(CONFIG, encoder=EncoderConfig(encoder, 64, 16)))
    pruner = Pruner(captioner.encoder, Magnitude(0.8), steps=1)
    pruner.attach(torch.optim.SGD(captioner.encoder.parameters(), 0.0)).step()
    pruner.finalize()
    images = [SCENES[i].pixels() for i in range(8)]
    steps = calibrate(captioner, "compact", own_batches(captioner, images))
    assert {name.split(".")[0] for name in steps} == {"encoder", "decoder"}
    save(captioner, tmp_path / "file", "compact", steps=steps)
    engine, module = laconic.load(tmp_path / "file"), load(tmp_path / "file")
    kernels = [weight for name, weight in module.encoder.named_parameters() if weight.ndim > 1]
    kept = sum(int(torch.count_nonzero(weight)) for weight in kernels) / sum(weight.numel() for weight in kernels)
    assert 0.1 < kept < 0.201
    assert engine.caption(images) == module.caption(images)


def test_region_features_calibrate_too(tmp_path: Path) -> None:
    config = ModelConfig(EncoderConfig(REGIONS, channels=5), DecoderConfig("up_down", {"word": 8, "hidden": 9}))
    captioner = captioner_of(config)
    rng = np.random.default_rng(0)
    arrays = [rng.random((4 + i, 5), np.float32) for i in range(3)]
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    (named,) = named_batches(captioner, [tmp_path / "0.npy", tmp_path])
    (given,) = own_batches(captioner, [Regions(array) for array in [arrays[0], *arrays]])
    assert torch.equal(named[0].grid, given[0].grid)
    assert torch.equal(named[1], given[1])
    write_regions(tmp_path / "all.safetensors", ((i, Regions(array)) for i, array in enumerate(arrays)))
    (packed,) = named_batches(captioner, [tmp_path / "all.safetensors"])
    assert torch.equal(packed[0].grid, named[0].grid[1:].half().float())
    before = copy.deepcopy(captioner)
    steps = calibrate(captioner, "compact", [named])
    assert "decoder.attention_lstm.bias_hh" not in steps  # folded away
    assert 0 < distance(before, captioner, [named]) <= VALUES["compact"].error


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: (run / "recipe.json").unlink(), "its recipe cannot be read"),
        (lambda run: (run / "recipe.json").write_text('{"data": {"name": "flickr8k", "root": "gone"}}'), "gone"),
        (lambda run: (run / "recipe.json").write_text('{"data": {"train": "x"}}'), "recipe.json: data: train"),
    ],
)
def test_training_data_that_is_gone(captioner: ImageCaptioner, run: Path, change, says: str) -> None:
    change(run)
    with pytest.raises((ConfigError, DataError), match=says):
        training_batches(captioner, run, 4)


# The command line


def test_pack_calibrates_on_the_training_data_by_itself(
    run: Path, captioner: ImageCaptioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compact"
    words = ["pack", str(run), "-o", str(out), "--values", "compact"]
    assert main([*words, "--calibrate", "16"]) == 0
    assert capsys.readouterr().out.startswith("calibrating on 16 images ...\n")
    packed = store.load(out)
    assert packed.config["facts"] == {"scores": {"CIDEr": 0.5}}
    others = own_batches(captioner, [SCENES[i].pixels() for i in range(50, 60)])
    assert distance(captioner, load(out), others) < 2 * VALUES["compact"].pixel_error
    data = out.read_bytes()
    assert main([*words, "--calibrate", "16"]) == 0
    assert out.read_bytes() == data
    assert main(["pack", str(out), "-o", str(tmp_path / "again"), "--values", "compact"]) == 0  # nothing to do
    assert all(np.array_equal(packed[name], again) for name, again in store.load(tmp_path / "again").items())
    assert main([*words, "--calibrate", "0"]) == 0
    save(copy.deepcopy(captioner), tmp_path / "plain", "compact")
    assert not store.compare(out, tmp_path / "plain").changed


def test_pack_calibrates_a_packed_file_on_photos(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(SCENES[i].pixels()).save(photos / f"{i}.png")
    source = shutil.copy(run / "model.safetensors", tmp_path / "exact")
    words = ["pack", str(source), "-o", str(tmp_path / "fine"), "--values", "fine"]
    assert main(words) == 2
    assert "name some with --images, or give --calibrate 0" in capsys.readouterr().err
    assert main([*words, "--images", str(photos), str(photos / "0.png")]) == 0
    assert capsys.readouterr().out.startswith("calibrating on 4 images ...\n")
    again = ["pack", str(tmp_path / "fine"), "-o", str(tmp_path / "again"), "--values", "fine"]
    assert main([*again, "--images", str(photos)]) == 2
    assert "fine: is fine already; give the exact file" in capsys.readouterr().err


def test_half_is_folded_and_exact_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig(EncoderConfig(REGIONS, channels=5), DecoderConfig("up_down", {"word": 8, "hidden": 9}))
    captioner = captioner_of(config)
    before = {name: value.clone() for name, value in captioner.state_dict().items()}
    save(captioner, tmp_path / "exact", "exact")
    assert all(torch.equal(value, before[name]) for name, value in load(tmp_path / "exact").state_dict().items())
    assert main(["pack", str(tmp_path / "exact"), "-o", str(tmp_path / "half")]) == 0
    half = store.load(tmp_path / "half")
    assert not half["decoder.language_lstm.bias_hh"].any()
    merged = before["decoder.language_lstm.bias_ih"] + before["decoder.language_lstm.bias_hh"]
    assert np.array_equal(half["decoder.language_lstm.bias_ih"], merged.half().float().numpy())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--values compact --calibrate -1", "--calibrate -1: give a number of images"),
        ("--values half --images x.png", "values half are not calibrated"),
        ("--values compact --images nowhere.png", "nowhere.png: "),
        ("--values compact --images empty", "holds no image"),
        ("--values compact", "no training images to calibrate on; name some with --images"),
    ],
)
def test_wrong_use(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    (run / "recipe.json").write_text('{"data": {"name": "flickr8k", "root": "gone"}}')
    assert main(["pack", "run", "-o", "x", *line.split()]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not Path("x").exists()


def test_a_captioner_without_an_output_bias_is_left_as_it_is():
    assert not hold_captions(SimpleNamespace(decoder=SimpleNamespace(output_bias=None)), [], {})
