"""Captioners that spell words by digits: the same captions from every backend, and words alone in them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.engine import Engine
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, FormatError
from laconic.recipes.calibration import calibrate, own_batches
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.plan import Plan
from laconic.spec.captioners import CAPTIONERS
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, UNK, Vocabulary

SIZES = {
    "soft_attention": {"word": 12, "hidden": 16},
    "up_down": {"word": 12, "hidden": 16, "attention": 8},
    "object_relation": {"layers": 2, "width": 16, "feed_forward": 24, "heads": 2},
    "aoanet": {"layers": 1, "width": 16, "heads": 2},
}
WORDS = 35  # of 16 digits: the first is 0, 1 or 2, and 2 goes before 0, 1 and 2 alone
VOCABULARY = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(WORDS))), base=16)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)


def make(name: str = "soft_attention") -> ImageCaptioner:
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("toy", 64, 16), DecoderConfig(name, SIZES[name]))
    captioner = ImageCaptioner(config, VOCABULARY).eval()
    with torch.no_grad():
        for parameter in captioner.decoder.parameters():
            parameter.mul_(3) if parameter.ndim > 1 else parameter.normal_(0, 0.3)
    return captioner


@pytest.mark.parametrize("name", CAPTIONERS)
@pytest.mark.parametrize("decoding", [Decoding(1, 6), Decoding(3, 7), Decoding(5, 4, 0.7, allow_unknown=True)])
def test_every_backend_says_the_same_words(name: str, decoding: Decoding, tmp_path: Path) -> None:
    captioner = make(name)
    save(captioner, tmp_path / "tiny", "exact")
    engine = Engine.load(tmp_path / "tiny")
    found = captioner.search(captioner.batch(list(PIXELS)), decoding)
    given = engine.batch(list(PIXELS))
    for path in (engine.path, NumpyPath(engine.plan)):
        again = path.search(given, decoding)
        assert [[h.tokens for h in image] for image in again] == [[h.tokens for h in image] for image in found]
        for ours, theirs in zip(again, found, strict=True):
            np.testing.assert_allclose([h.score for h in ours], [h.score for h in theirs], atol=1e-3)
    best = [h for image in found for h in image]
    assert all(len(h.tokens) % 2 == 0 and len(h.tokens) <= 2 * decoding.max_length for h in best)
    assert decoding.allow_unknown or all(UNK not in engine.vocabulary.read(h.tokens) for h in best)
    assert load(tmp_path / "tiny").caption(list(PIXELS), decoding) == engine.caption(list(PIXELS), decoding)


def test_a_file_has_digits_in_the_place_of_words(tmp_path: Path) -> None:
    save(make(), tmp_path / "tiny", "exact")
    packed = store.load(tmp_path / "tiny")
    assert packed.entries["decoder.embedding.weight"].shape == (20, 12)
    assert len(packed.vocabulary or ()) == WORDS + len(SPECIALS)
    plan = Engine.load(tmp_path / "tiny").plan
    plan.save(tmp_path / "plan")
    header = Plan.read(tmp_path / "plan").header
    assert (header["vocabulary"], header["words"]) == (20, 39)


def test_few_bits_say_words_alone() -> None:
    captioner = make()
    calibrate(captioner, "compact", own_batches(captioner, PIXELS))
    found = captioner.search(captioner.batch(list(PIXELS)), Decoding(3, 7))
    said = [VOCABULARY.read(h.tokens) for image in found for h in image]
    assert any(said)
    assert all(UNK not in numbers for numbers in said)  # which is what digits that spell no word are read as


def test_a_caption_longer_than_a_search_keeps_is_refused(tmp_path: Path) -> None:
    captioner = make()
    save(captioner, tmp_path / "tiny", "exact")
    for one in (captioner, Engine.load(tmp_path / "tiny")):
        with pytest.raises(ConfigError, match="spelled by 2 digits: give at most 250"):
            one.caption(list(PIXELS), Decoding(2, 251))


@pytest.mark.parametrize("base", [15, "16", 16.5, 32])
def test_a_damaged_base_is_refused(base, tmp_path: Path) -> None:
    captioner = make()
    save(captioner, tmp_path / "tiny", "exact")
    packed = store.load(tmp_path / "tiny")
    store.save(captioner, tmp_path / "bad", config={**packed.config, "base": base}, vocabulary=packed.vocabulary)
    for open_ in (load, Engine.load):
        with pytest.raises(FormatError, match="bad"):
            open_(tmp_path / "bad")
