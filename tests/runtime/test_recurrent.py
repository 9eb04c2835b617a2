"""Soft-Attention and Up-Down: the native library = numpy = torch, down to single log-probabilities."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from laconic.captioner.image_captioner import ImageCaptioner, stack_regions
from laconic.data.regions import Regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

plan_of = runpy.run_path(str(Path(__file__).parents[1] / "held.py"))["plan_of"]

CHANNELS, WORDS = 19, 61
KINDS = {
    "lstm": ("soft_attention", {"hidden": 21, "word": 13}),
    "gru": ("soft_attention", {"hidden": 18, "word": 7, "cell": "gru"}),
    "up_down": ("up_down", {"hidden": 22, "word": 15, "attention": 11}),
}
native = pytest.mark.skipif(library() is None, reason="there is no compiled library")


def captioner_of(kind: str, density: float = 1.0, scale: float = 2.5) -> ImageCaptioner:
    """Random weights, so large that captions differ; biases too, which are zero in a new captioner."""
    name, options = KINDS[kind]
    vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(WORDS - len(SPECIALS)))), "words")
    config = ModelConfig(EncoderConfig("regions", channels=CHANNELS), DecoderConfig(name, options))
    captioner = ImageCaptioner(config, vocabulary).eval()
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter.normal_(0, scale / (parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 3.0))
            if parameter.dim() > 1:
                parameter *= torch.rand_like(parameter) < density
        captioner.decoder.output.bias[3] += 1.0  # some captions end
    return captioner


def regions_of(*counts: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(count, CHANNELS)).astype(np.float32) for count in counts]


def inputs_of(regions: list[np.ndarray]) -> Inputs:
    positions = np.array([len(found) for found in regions], np.uint32)
    return Inputs(features=np.concatenate(regions), positions=positions)


def by_torch(captioner: ImageCaptioner, regions: list[np.ndarray], decoding: Decoding) -> list[list[Hypothesis]]:
    return captioner.search(stack_regions([Regions(found) for found in regions]), decoding)


def assert_same(found: list[list[Hypothesis]], wanted: list[list[Hypothesis]]) -> None:
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.finished == other.finished
            np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
            assert one.score == pytest.approx(other.score, abs=2e-4)


@native
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_those_of_torch(kind: str, density: float) -> None:
    captioner = captioner_of(kind, density)
    plan, regions = plan_of(captioner), regions_of(36, 1, 5, 9, 17)
    for beam in (1, 3, 5, 17):
        decoding = Decoding(beam=beam, max_length=7)
        wanted = by_torch(captioner, regions, decoding)
        assert beam == 1 or len({caption.tokens for image in wanted for caption in image}) > beam + 1
        assert_same(NativePath(plan).search(inputs_of(regions), decoding), wanted)
        if beam in (1, 5):
            assert_same(NumpyPath(plan).search(inputs_of(regions), decoding), wanted)


@native
@pytest.mark.parametrize(
    ("kind", "decoding"),
    [
        ("lstm", Decoding(beam=4, max_length=1)),
        ("up_down", Decoding(beam=4, max_length=12, length_penalty=0.7)),
        ("gru", Decoding(beam=2, max_length=7, length_penalty=2, allow_unknown=True)),
    ],
)
def test_options_of_decoding(kind: str, decoding: Decoding) -> None:
    captioner, regions = captioner_of(kind), regions_of(4, 10, 2)
    plan, wanted = plan_of(captioner), by_torch(captioner, regions, decoding)
    assert_same(NativePath(plan).search(inputs_of(regions), decoding), wanted)
    assert_same(NumpyPath(plan).search(inputs_of(regions), decoding), wanted)


@native
@pytest.mark.parametrize("kind", KINDS)
def test_what_shares_a_call_changes_no_bit(kind: str) -> None:
    regions = regions_of(*(np.arange(31) % 13 + 1))
    path, decoding = NativePath(plan_of(captioner_of(kind, 0.3))), Decoding(beam=5, max_length=8)
    together = path.search(inputs_of(regions), decoding)  # 155 captions in the making: three panels
    apart = [path.search(inputs_of([one]), decoding)[0] for one in regions]
    assert together == apart


@native
@pytest.mark.parametrize(("key", "query"), [(60.0, -62.0), (0.0, -44.0), (50.0, 0.0)])
def test_attention_beyond_the_range_of_exponentials(key: float, query: float) -> None:
    captioner = captioner_of("up_down")
    decoder, size = captioner.decoder, KINDS["up_down"][1]["hidden"]
    with torch.no_grad():
        decoder.attention_lstm.bias_ih[[0, 2 * size, 3 * size]] = 50.0  # the first hidden number comes close to 1
        decoder.query.weight[:, 0] = query
        decoder.key.bias += key
    plan, regions, decoding = plan_of(captioner), regions_of(7, 12), Decoding(beam=3, max_length=6)
    assert_same(NativePath(plan).search(inputs_of(regions), decoding), by_torch(captioner, regions, decoding))


@native
def test_a_score_that_looks_at_nothing_attends_evenly() -> None:
    captioner = captioner_of("up_down")
    torch.nn.init.zeros_(captioner.decoder.score.weight)
    plan, regions, decoding = plan_of(captioner), regions_of(7, 12), Decoding(beam=3, max_length=6)
    assert_same(NativePath(plan).search(inputs_of(regions), decoding), by_torch(captioner, regions, decoding))
