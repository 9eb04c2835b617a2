"""The Object Relation Transformer: the native library = numpy = torch, down to single log-probabilities."""

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
from laconic.errors import ConfigError, FormatError, TrainingError
from laconic.models.box_geometry import embed_geometry, relative_geometry
from laconic.models.layers import cell_boxes as torch_cell_boxes
from laconic.models.transformer import sinusoids as torch_sinusoids
from laconic.native.library import library
from laconic.runtime import rules_transformer
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import NONE, OPERATIONS
from laconic.runtime.planning import make_plan
from laconic.runtime.relations import cell_boxes, embed_pairs
from laconic.runtime.rules_transformer import sinusoids
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

plan_of = runpy.run_path(str(Path(__file__).parents[1] / "held.py"))["plan_of"]

CHANNELS, WORDS = 11, 47
REGIONS = EncoderConfig("regions", channels=CHANNELS)
SHAPES: dict[str, dict[str, Any]] = {  # heads of 2, 4, 12, 40 and 72 numbers: less than a vector, and no whole number
    "narrow_heads": {"layers": 1, "width": 14, "feed_forward": 3, "heads": 7},
    "many_heads": {"layers": 3, "width": 36, "feed_forward": 17, "heads": 9},
    "plain_sides": {"layers": 2, "width": 24, "feed_forward": 40, "heads": 2, "plus_one": False},
    "wide": {"layers": 1, "width": 80, "feed_forward": 9, "heads": 2},
    "one_head": {"layers": 2, "width": 72, "feed_forward": 24, "heads": 1},
    "keys_are_values": {
        "layers": 4,
        "width": 24,
        "feed_forward": 9,
        "heads": 3,
        "share_attention": "kv",
        "share_layers": (0, 0, 1, 0),
    },
    "queries_are_keys": {
        "layers": 3,
        "width": 24,
        "feed_forward": 9,
        "heads": 3,
        "share_attention": "qk",
        "share_layers": (0, 0, 0),
    },
}
PATHS: list[Any] = [NumpyPath, NativePath] if library() else [NumpyPath]
native = pytest.mark.skipif(library() is None, reason="there is no compiled library")


def captioner_of(options: dict[str, Any], encoder: EncoderConfig = REGIONS, density: float = 1.0) -> ImageCaptioner:
    """Random weights, so large that captions differ; gains and biases too, which are ones and zeros at first."""
    vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(WORDS - len(SPECIALS)))), "words")
    captioner = ImageCaptioner(ModelConfig(encoder, DecoderConfig("object_relation", options)), vocabulary).eval()
    with torch.no_grad():
        for parameter in captioner.decoder.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn_like(parameter) * 0.3
            else:
                parameter *= (torch.rand_like(parameter) < density) * 2
        captioner.decoder.embedding.weight *= 3 / options.get("width", 512) ** 0.5
        captioner.decoder.output.bias[3] += 0.7  # some captions end
    return captioner


def regions_of(*counts: int) -> list[Regions]:
    """Images of so many regions each."""
    rng = np.random.default_rng(7)
    images = []
    for count in counts:
        corners = np.sort(rng.random((count, 2, 2)), 1).reshape(count, 4)
        images.append(Regions(rng.standard_normal((count, CHANNELS)).astype("f4"), corners.astype("f4")))
    return images


def inputs_of(images: list[Regions]) -> Inputs:
    counts = np.array([len(image.features) for image in images], np.uint32)
    boxes = np.concatenate([image.boxes for image in images if image.boxes is not None])
    return Inputs(features=np.concatenate([image.features for image in images]), positions=counts, boxes=boxes)


def assert_same(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in expected]
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a.log_probs, b.log_probs, atol=3e-5)
            assert a.finished == b.finished


def test_relations_are_those_of_torch():
    boxes = regions_of(13)[0].boxes
    assert boxes is not None
    boxes[1] = boxes[0]  # no distance at all
    boxes[2] = [0.5, 0.5, 0.5, 0.5]
    for plus_one in (True, False):
        expected = embed_geometry(relative_geometry(torch.tensor(boxes), plus_one)).permute(2, 1, 0).flatten(1)
        np.testing.assert_allclose(embed_pairs(boxes, plus_one), expected, atol=2e-4)
    np.testing.assert_array_equal(cell_boxes(49), torch_cell_boxes(49))


def test_words_have_the_places_of_torch():
    np.testing.assert_allclose(sinusoids(40, 36), torch_sinusoids(torch.arange(40), 36), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_captions_are_those_of_torch(shape, tmp_path):
    captioner = captioner_of(SHAPES[shape], density=0.6)
    if shape == "narrow_heads":  # by way of a file
        packing.save(captioner, tmp_path / "captioner.safetensors", "half")
        plan = make_plan(store.load(tmp_path / "captioner.safetensors"))
        captioner = packing.load(tmp_path / "captioner.safetensors")
    else:
        plan = plan_of(captioner)
    for counts, beam in (((5,), 1), ((1, 3, 36, 60), 3), ((7,), 17), ((4, 2, 9, 1) * 4, 5)):
        images, decoding = regions_of(*counts), Decoding(beam=beam, max_length=6)
        expected = captioner.search(stack_regions(images), decoding)
        for path in PATHS:
            assert_same(path(plan).search(inputs_of(images), decoding), expected)


@pytest.mark.parametrize(("size", "stride"), [(96, 32), (144, 16)])  # relations made beforehand, or not
def test_cells_of_a_grid_lie_where_they_lie(size, stride):
    captioner = captioner_of(SHAPES["many_heads"], EncoderConfig("convnet", size, stride))
    plan = plan_of(captioner)
    constant = [a["constant"] != NONE for name, a in plan.program("image") if name == "ATTEND_RELATED"]
    assert constant == [(size / stride) ** 2 <= 64] * 3
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    expected = captioner.search(torch.from_numpy(pixels), Decoding(beam=3, max_length=6))
    for path in PATHS:
        assert_same(path(plan).search(Inputs(pixels=pixels), Decoding(beam=3, max_length=6)), expected)


def test_what_is_shared_lies_in_a_plan_once():
    plain, shared = (
        plan_of(captioner_of({"layers": 4, "width": 24, "feed_forward": 9, "heads": 3, **options}))
        for options in ({}, {"share_attention": "kv", "share_layers": (0, 0, 1, 1)})
    )
    # region, relations, output; in each layer attention and feed-forward net, twice and once in the decoder's
    assert len(plain.matrices) == 4 + 4 * (4 + 2 + 2 * 4 + 2)
    assert len(shared.matrices) == 4 + 2 * (3 + 2 + 2 * 3 + 2)
    assert len(shared.operations) == len(plain.operations) - 2 * 2  # the memory's keys and values, of two layers less
    assert sum(name == "ATTEND_WORDS" for name, _ in shared.program("step")) == 4
    assert len({a["kept"] for name, a in shared.program("step") if name == "ATTEND_WORDS"}) == 4


@native
def test_an_image_is_captioned_alike_in_any_company():
    path = NativePath(plan_of(captioner_of(SHAPES["plain_sides"])))
    images = regions_of(*(3 + i % 40 for i in range(30)))
    for beam in (1, 5):  # one panel, and three, whose borders divide the captions of an image
        decoding = Decoding(beam=beam, max_length=8)
        together = path.search(inputs_of(images), decoding)
        for i in (0, 12, 29):
            alone = path.search(inputs_of(images[i : i + 1]), decoding)[0]
            assert [h.tokens for h in alone] == [h.tokens for h in together[i]]
            for mine, theirs in zip(alone, together[i], strict=True):
                np.testing.assert_allclose(mine.log_probs, theirs.log_probs, atol=1e-5)


@native
def test_damaged_features_are_an_error_that_names_the_image():
    images = regions_of(5, 6, 3)
    images[1].features[2, 4] = np.nan
    with pytest.raises(TrainingError, match=r"image 1 "):
        NativePath(plan_of(captioner_of(SHAPES["many_heads"]))).search(inputs_of(images), Decoding())


def test_heads_that_are_too_wide_are_refused(monkeypatch):
    monkeypatch.setattr(rules_transformer, "MOST_HEAD", 3)
    with pytest.raises(ConfigError, match="heads of 3 numbers at most"):
        plan_of(captioner_of(SHAPES["many_heads"]))


FAR = 2**31
DAMAGE: dict[str, list[dict[str, int]]] = {
    "LAYER_NORM": [{"x": FAR}, {"y": NONE}, {"weight": 2}, {"bias": FAR}, {"x": 0}],
    "RELATE": [{"y": FAR}, {"y": 0}, {"boxes": 0}, {"plus_one": 2}],
    "ATTEND_RELATED": [
        {"heads": 0}, {"heads": 5}, {"width": 0}, {"width": 2**16}, {"seen_row": 1}, {"query_row": FAR}, {"y": NONE},
        {"constant": 64}, {"relation": 0}, {"relation_row": 64}, {"constant": 0}, {"seen": FAR}, {"width": FAR},
    ],
    "ATTEND_WORDS": [
        {"heads": 0}, {"heads": 5}, {"width": 48}, {"words_row": 1}, {"y_row": 1}, {"kept": 0}, {"kept": FAR},
        {"query": 0}, {"words_row": NONE},
    ],
    "ATTEND_POSITIONS": [
        {"heads": 0}, {"heads": 48}, {"seen": 0}, {"seen_row": 1}, {"seen": FAR}, {"query": 0}, {"y": 0}, {"width": 25},
    ],
}  # fmt: skip


@native
@pytest.mark.parametrize("operation", DAMAGE)
def test_damaged_operations_are_refused(operation):
    plan = plan_of(captioner_of(SHAPES["plain_sides"]))
    NativePath(plan)
    at = int(np.flatnonzero(plan.operations["code"] == list(OPERATIONS).index(operation))[0])
    sound = plan.operations["arguments"][at].copy()
    for change in DAMAGE[operation]:
        for name, value in change.items():
            plan.operations["arguments"][at][OPERATIONS[operation].index(name)] = value
        with pytest.raises(FormatError, match="damaged"):
            NativePath(plan)
        plan.operations["arguments"][at] = sound
