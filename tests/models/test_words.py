"""Tied and factorised tables of words: what they compute, that they stay one, and that every road takes them."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import laconic
from laconic.captioner.accounting import count_weights
from laconic.captioner.engine import Engine
from laconic.captioner.packing import load
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.models.captioners import CAPTIONERS
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.recipes.calibration import calibrate, own_batches
from laconic.runtime import planning
from laconic.runtime.numpy_path import NumpyPath
from laconic.spec import captioners as spec
from laconic.spec.model import EncoderConfig

FORMS = {"tied": {"tied": True}, "rank": {"rank": 3}, "both": {"tied": True, "rank": 3}}
SIZES = {"vocabulary": 40, "grid_channels": 5, "pooled_channels": 5}
SMALL = {
    "up_down": {"word": 6, "hidden": 8, "attention": 3},
    "object_relation": {"layers": 1, "width": 8, "feed_forward": 12, "heads": 2},
    "soft_attention": {"word": 6, "hidden": 8},
    "aoanet": {"layers": 1, "width": 8, "heads": 2},
}
VGG = EncoderConfig("vgg_small", 64, 16)


@pytest.fixture(params=CAPTIONERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> dict[str, object]:
    return FORMS[request.param]


def make(name: str, **options: object) -> TorchCaptioner:
    torch.manual_seed(0)
    return CAPTIONERS[name](spec.CAPTIONERS[name](**SIZES, **SMALL[name], **options)).eval()


def sides(name: str) -> tuple[int, int]:
    """Numbers of a word and of a hidden state."""
    small = SMALL[name]
    return small.get("word", small.get("width")), small.get("hidden", small.get("width"))


def test_what_they_compute(name: str, form: dict[str, object]) -> None:
    model, (word, hidden) = make(name, **form), sides(name)
    ids, state = torch.tensor([3, 7]), torch.randn(2, hidden)
    table = model.embedding.weight
    vectors = table[ids] @ model.widen.weight.T if "rank" in form else table[ids]
    torch.testing.assert_close(model.embed(ids), vectors)
    assert vectors.shape == (2, word)
    scored = state @ model.reduce.weight.T if model.reduce is not None else state
    output = table if "tied" in form else model.output.weight
    torch.testing.assert_close(model.logits(state), scored @ output.T + model.output.bias)


def test_what_they_cost(name: str, form: dict[str, object]) -> None:
    """Formulas of the table in laconic.models.words."""
    words, (word, hidden), rank = SIZES["vocabulary"], sides(name), form.get("rank", 0)
    columns = rank or word
    tables = words * columns + (words * columns if "tied" not in form else 0)
    between = rank * word + (hidden * columns if rank or word != hidden else 0)
    usual = words * word + words * hidden
    saved = usual - tables - between
    assert count_weights(make(name)).total - count_weights(make(name, **form)).total == saved


@pytest.mark.parametrize("norm", ["decoder_norm"])
def test_folding_leaves_a_tied_table_alone(norm: str) -> None:
    features, tokens = Features(torch.rand(2, 9, 5), torch.rand(2, 5)), torch.tensor([[[2, 5, 3]], [[2, 6, 3]]])
    for form in FORMS.values():
        model = make("object_relation", **form)
        with torch.no_grad():
            for parameter in model.get_submodule(norm).parameters():
                parameter.normal_()
            before, table = model(features, tokens), model.embedding.weight.clone()
            model.fold()
            torch.testing.assert_close(model(features, tokens), before, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.embedding.weight, table)
        assert not model.get_submodule(norm).bias.any()


def test_one_mask_for_a_tied_table(name: str) -> None:
    model = make(name, tied=True)
    pruner = Pruner(model, Magnitude(0.9))
    pruner.finalize()
    assert model.output.weight is model.embedding.weight
    assert count_weights(model).sparsity == pytest.approx(0.9, abs=0.01)


def test_a_packed_table_is_there_once(
    name: str, form: dict[str, object], random_captioner: Callable[..., Path]
) -> None:
    path = random_captioner(name, VGG, **form)
    back = load(path)
    assert (back.decoder.output.weight is back.decoder.embedding.weight) == ("tied" in form)
    assert laconic.store.load(path).ties == (
        {"decoder.output.weight": "decoder.embedding.weight"} if "tied" in form else {}
    )


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", planning.CAPTIONERS)
def test_the_engine_says_the_same(
    name: str, beam: int, form: dict[str, object], random_captioner: Callable[..., Path]
) -> None:
    path = random_captioner(name, VGG, **form)
    pixels = list(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8))
    engine, decoding = laconic.load(path), Decoding(beam, max_length=8)
    said = laconic.load(path, backend="torch").caption(pixels, decoding)
    assert engine.caption(pixels, decoding) == said
    assert Engine(engine.spec, NumpyPath(engine.plan)).caption(pixels, decoding) == said
    assert any(said)


def test_they_are_calibrated(name: str, form: dict[str, object], random_captioner: Callable[..., Path]) -> None:
    captioner = load(random_captioner(name, VGG, **form))
    before = copy.deepcopy(captioner.decoder.embedding.weight)
    pixels = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8))
    steps = calibrate(captioner, "fine", own_batches(captioner, pixels))
    assert "decoder.embedding.weight" in steps
    assert not torch.equal(captioner.decoder.embedding.weight, before)
    assert (captioner.decoder.output.weight is captioner.decoder.embedding.weight) == ("tied" in form)


def test_ranks_below_zero_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="rank = -1; give at least 0"):
        make(name, rank=-1)
