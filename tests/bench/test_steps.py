"""Captioners with explicit state say what the captioners themselves say, in PyTorch and in other engines."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from laconic.bench import exported, rivals
from laconic.bench.given import random_inputs, stacked
from laconic.bench.rivals import Search, Stepper, batch_of, eager
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.steps import modules_of
from laconic.data.regions import Regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, decode
from laconic.models.layers import Features
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.spec.tokens import SPECIAL
from laconic.text import SPECIALS, Vocabulary

WORDS = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(36))))
DECODING = Decoding(beam=3, max_length=10)  # more words than a vector of OpenVINO's has lanes
DECODERS = {
    "up_down": {"hidden": 24, "word": 16, "attention": 16},
    "soft_attention": {"hidden": 24, "word": 16},
    "soft_attention gru": {"hidden": 24, "word": 16, "cell": "gru"},
    "object_relation": {"width": 32, "heads": 4, "layers": 2, "feed_forward": 48},
    "aoanet": {"width": 32, "heads": 4, "layers": 1},
    "aoanet factorised": {"width": 32, "heads": 4, "layers": 1, "tied": True, "rank": 8},
    "object_relation shared": {
        "width": 32,
        "heads": 4,
        "layers": 3,
        "feed_forward": 48,
        "share_attention": "kv",
        "share_layers": [0, 1, 0],
    },
}


def captioner_of(name: str, encoder: EncoderConfig) -> ImageCaptioner:
    """Weights large enough for captions to differ."""
    torch.manual_seed(3)
    model = ModelConfig(encoder, DecoderConfig(name.split()[0], DECODERS[name]))
    captioner = ImageCaptioner(model, WORDS).eval()
    with torch.no_grad():
        for weight in captioner.decoder.parameters():
            if weight.ndim == 2:
                weight.mul_(2.5)
    return captioner


def case(name: str, counts: list[int]) -> tuple[ImageCaptioner, Features | Tensor]:
    captioner = captioner_of(name, EncoderConfig("regions", channels=12))
    rng = np.random.default_rng(5)
    boxes = [np.sort(rng.random((n, 2, 2), np.float32), 1).reshape(n, 4) for n in counts]
    located = captioner.needs_boxes
    features = [rng.standard_normal((n, 12), np.float32) for n in counts]
    regions = [Regions(f, b if located else None) for f, b in zip(features, boxes, strict=True)]
    return captioner, batch_of(stacked(regions))


def assert_same(found: list[list[Hypothesis]], expected: list[list[Hypothesis]], tolerance: float = 1e-4) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0].tokens == theirs[0].tokens
        np.testing.assert_allclose(ours[0].log_probs, theirs[0].log_probs, atol=tolerance)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("counts", [[5], [7, 7], [3, 9, 6]], ids=str)
def test_modules_with_explicit_state_say_the_same(name: str, counts: list[int]) -> None:
    captioner, given = case(name, counts)
    start, step = modules_of(captioner, given)
    found = decode(Stepper(start, step, step), given, DECODING, SPECIAL)
    assert_same(found, eager(captioner, given)(DECODING))
    assert len({hypotheses[0].tokens for hypotheses in found}) == len(counts)  # or nothing could be told apart


def test_a_start_reads_pixels() -> None:
    captioner = captioner_of("soft_attention", EncoderConfig("toy", 32, 16))
    given = batch_of(random_inputs(captioner.spec, 2))
    start, step = modules_of(captioner, given)
    assert_same(decode(Stepper(start, step, step), given, DECODING, SPECIAL), captioner.search(given, DECODING))


@pytest.mark.parametrize("name", DECODERS)
def test_int8_is_near_and_leaves_the_captioner_as_it_was(name: str) -> None:
    captioner, given = case(name, [4, 6])
    expected = captioner.search(given, DECODING)
    found = rivals.int8(captioner, given)(DECODING)
    first = [hypotheses[0].log_probs[0] for hypotheses in found]
    near = 0.5 if name == "aoanet" else 0.3  # nats; AoANet's gates multiply two numbers that were rounded
    np.testing.assert_allclose(first, [hypotheses[0].log_probs[0] for hypotheses in expected], atol=near)
    assert_same(captioner.search(given, DECODING), expected, 0)


def test_bfloat16_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "slow_in_bfloat16", lambda: False)
    captioner, given = case("object_relation", [4, 6])
    expected = captioner.search(given, DECODING)
    found = rivals.bfloat16(captioner, given)(DECODING)
    first = [hypotheses[0].log_probs[0] for hypotheses in found]
    np.testing.assert_allclose(first, [hypotheses[0].log_probs[0] for hypotheses in expected], atol=0.1)


def engines() -> list[Any]:
    rows: list[tuple[Callable[..., Search], tuple[str, ...]]] = [
        (exported.onnx_runtime, ("onnx", "onnxruntime")),
        (exported.openvino, ("onnx", "openvino")),
    ]
    found = []
    for make, needs in rows:
        missing = [package for package in needs if importlib.util.find_spec(package) is None]
        skip = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
        found.append(pytest.param(make, marks=skip, id=make.__name__))
    return found


@pytest.mark.parametrize("make", engines())
@pytest.mark.parametrize("name", DECODERS)
def test_exported_modules_say_the_same(make: Callable[..., Search], name: str) -> None:
    captioner, given = case(name, [3, 9, 6])
    assert_same(make(captioner, given)(DECODING), captioner.search(given, DECODING), 1e-3)
