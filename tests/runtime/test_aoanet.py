"""AoANet: the native library = numpy = torch, on regions and on cells; damaged gates and means are refused."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner import packing
from laconic.captioner.image_captioner import ImageCaptioner, stack_regions
from laconic.data.regions import Regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import FormatError
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import NONE, OPERATIONS
from laconic.runtime.planning import make_plan
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

HELD = runpy.run_path(str(Path(__file__).parents[1] / "held.py"))
plan_of = HELD["plan_of"]

CHANNELS, WORDS = 11, 47
REGIONS = EncoderConfig("regions", channels=CHANNELS)
SHAPES: dict[str, dict[str, Any]] = {  # heads of 2, 4, 13 and 72 numbers: less than a vector, and no whole number
    "narrow_heads": {"layers": 1, "width": 14, "heads": 7},
    "many_heads": {"layers": 3, "width": 36, "heads": 9},
    "feed_forward": {"layers": 2, "width": 26, "heads": 2, "feed_forward": 17},
    "no_refiner": {"layers": 0, "width": 24, "heads": 3},
    "one_head": {"layers": 1, "width": 72, "heads": 1},
}
PATHS: list[Any] = [NumpyPath, NativePath] if library() else [NumpyPath]
native = pytest.mark.skipif(library() is None, reason="there is no compiled library")


def captioner_of(options: dict[str, Any], encoder: EncoderConfig = REGIONS, density: float = 1.0) -> ImageCaptioner:
    """Random weights, so large that captions differ; gains and biases too, which are ones and zeros at first."""
    vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(WORDS - len(SPECIALS)))), "words")
    torch.manual_seed(3)
    captioner = ImageCaptioner(ModelConfig(encoder, DecoderConfig("aoanet", options)), vocabulary).eval()
    with torch.no_grad():
        for parameter in captioner.decoder.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn_like(parameter) * 0.3
            else:
                parameter *= (torch.rand_like(parameter) < density) * 2.5
        captioner.decoder.output.bias[3] += 0.7  # some captions end
    return captioner


def regions_of(*counts: int) -> list[np.ndarray]:
    """Images of so many regions each."""
    rng = np.random.default_rng(7)
    return [rng.standard_normal((count, CHANNELS)).astype("f4") for count in counts]


def inputs_of(images: list[np.ndarray]) -> Inputs:
    counts = np.array([len(image) for image in images], np.uint32)
    return Inputs(features=np.concatenate(images), positions=counts)


def by_torch(captioner: ImageCaptioner, images: list[np.ndarray], decoding: Decoding) -> list[list[Hypothesis]]:
    return captioner.search(stack_regions([Regions(image) for image in images]), decoding)


def assert_same(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in expected]
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a.log_probs, b.log_probs, atol=3e-5)
            assert a.finished == b.finished


@pytest.mark.parametrize("shape", SHAPES)
def test_captions_are_those_of_torch(shape, tmp_path):
    captioner = captioner_of(SHAPES[shape], density=0.6)
    if shape == "feed_forward":  # by way of a file, whose biases are folded
        packing.save(captioner, tmp_path / "captioner.safetensors", "half")
        plan = make_plan(store.load(tmp_path / "captioner.safetensors"))
        captioner = packing.load(tmp_path / "captioner.safetensors")
    else:
        plan = plan_of(captioner)
    for counts, beam in (((5, 9, 2, 30), 1), ((1, 3, 36, 60), 3), ((7,), 17), ((4, 2, 9, 1) * 4, 5)):
        images, decoding = regions_of(*counts), Decoding(beam=beam, max_length=6)
        expected = by_torch(captioner, images, decoding)
        assert len({image[0].tokens for image in expected}) > len(counts) // 4  # else nothing could be told apart
        for path in PATHS:
            assert_same(path(plan).search(inputs_of(images), decoding), expected)


@pytest.mark.parametrize("size", [96, 144])
def test_cells_of_a_grid(size):
    captioner = captioner_of(SHAPES["many_heads"], EncoderConfig("convnet", size, 16))
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    expected = captioner.search(torch.from_numpy(pixels), Decoding(beam=3, max_length=6))
    for path in PATHS:
        found = path(plan_of(captioner)).search(Inputs(pixels=pixels), Decoding(beam=3, max_length=6))
        assert_same(found, expected)


@native
def test_an_image_is_captioned_alike_in_any_company():
    path = NativePath(plan_of(captioner_of(SHAPES["many_heads"])))
    images = regions_of(*(3 + i % 40 for i in range(30)))
    for beam in (1, 5):  # one panel, and three, whose borders divide the captions of an image
        decoding = Decoding(beam=beam, max_length=8)
        together = path.search(inputs_of(images), decoding)
        for i in (0, 12, 29):
            assert path.search(inputs_of(images[i : i + 1]), decoding)[0] == together[i]


@pytest.mark.parametrize("name", ["refiner.0.attention.own.weight", "key.weight", "query_norm.weight"])
def test_a_file_without_a_tensor_or_with_another_shape_is_refused(name):
    captioner = captioner_of(SHAPES["one_head"])
    weights = HELD["held"](captioner)
    weights[f"decoder.{name}"] = weights[f"decoder.{name}"][:-1]
    for _ in range(2):
        with pytest.raises(FormatError, match=f"{name}.*pack it again"):
            make_plan(weights, spec=captioner.spec)
        weights.pop(f"decoder.{name}", None)
        weights.__dict__.pop("entries", None)


FAR = 2**31
DAMAGE: dict[str, list[dict[str, int]]] = {
    "GLU": [{"x": FAR}, {"y": NONE}, {"y_row": 100}, {"y_row": FAR}, {"x": 0}, {"y": 0}],
    "MEAN": [{"x": FAR}, {"y": NONE}, {"y": 0}],
}


@native
@pytest.mark.parametrize("operation", DAMAGE)
def test_damaged_operations_are_refused(operation):
    plan = plan_of(captioner_of(SHAPES["one_head"]))
    NativePath(plan)
    for at in np.flatnonzero(plan.operations["code"] == list(OPERATIONS).index(operation)):
        sound = plan.operations["arguments"][at].copy()
        for change in DAMAGE[operation]:
            for name, value in change.items():
                plan.operations["arguments"][at][OPERATIONS[operation].index(name)] = value
            with pytest.raises(FormatError, match="damaged"):
                NativePath(plan)
            plan.operations["arguments"][at] = sound


@native
def test_a_mean_of_captions_in_the_making_is_refused():
    plan = plan_of(captioner_of(SHAPES["one_head"]))
    rows = next(i for i, b in enumerate(plan.buffers) if b["space"] == 4 and b["rows"] == 72)
    at = int(np.flatnonzero(plan.operations["code"] == list(OPERATIONS).index("MEAN"))[0])
    plan.operations["arguments"][at][0] = rows
    with pytest.raises(FormatError, match="damaged"):
        NativePath(plan)
