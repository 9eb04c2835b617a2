"""What save and load keep apart: the captioner and its folded copy, files and captioners beyond memory."""

import copy
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import folded, load, save
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.errors import FormatError, PruningError
from laconic.spec import encoders
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.spec.pixels import Normalization
from laconic.text import SPECIALS, Vocabulary

VOCABULARY = Vocabulary((*SPECIALS, "a", "dog"))
SMALL = {"word": 4, "hidden": 6, "attention": 3}
LITE = Normalization((127.0,) * 3, (128.0,) * 3)


def make(decoder: str = "up_down", options: dict = SMALL, norm: bool = True) -> ImageCaptioner:
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("toy", size=32, stride=16, norm=norm), DecoderConfig(decoder, options))
    captioner = ImageCaptioner(config, VOCABULARY)
    captioner.encode(torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8))  # running statistics
    return captioner.eval()


def test_a_folded_captioner_is_another_and_shares_what_is_not_folded():
    captioner = make()
    exact, whole = folded(captioner, exact=True), folded(captioner)
    assert exact.decoder is captioner.decoder
    assert exact.encoder is not captioner.encoder
    assert captioner.encoder.conv0.norm is not None
    assert exact.encoder.conv0.norm is None
    assert bool(captioner.decoder.key.bias.any())
    assert not bool(whole.decoder.key.bias.any())
    assert folded(exact, exact=True).encoder is exact.encoder
    assert exact.vocabulary is captioner.vocabulary


def test_the_bytes_of_a_file_do_not_depend_on_what_was_packed_before(tmp_path):
    captioner = make()
    for name, values in (("first", "exact"), ("half", "half"), ("again", "exact")):
        save(captioner, tmp_path / name, values)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()


def test_masks_are_finalized_before_packing(tmp_path):
    captioner = make()
    pruner = Pruner(captioner, Supermask(0.5), steps=1)
    with pytest.raises(PruningError, match=r"x.*masks are still on.*finalize"):
        save(captioner, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    del pruner


def test_normalisation_is_written_where_it_is_not_the_usual_one(tmp_path, monkeypatch):
    captioner = make(norm=False)
    save(captioner, tmp_path / "usual", "exact")
    assert "pixels" not in store.load(tmp_path / "usual").config
    row = replace(encoders.ENCODERS["toy"], normalization=LITE)
    monkeypatch.setitem(encoders.ENCODERS, "toy", row)
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    usual = captioner.encoder((pixels.permute(0, 3, 1, 2) - 127.0) / 128.0)
    torch.testing.assert_close(captioner.encode(pixels).grid, usual.grid)
    save(captioner, tmp_path / "lite", "exact")
    assert store.load(tmp_path / "lite").config["pixels"] == {"mean": [127.0] * 3, "scale": [128.0] * 3}
    assert load(tmp_path / "lite").spec.normalization == LITE
    with pytest.raises(FormatError, match=r"usual: .*pixels"):  # made when the encoder read them otherwise
        load(tmp_path / "usual")


def test_loading_holds_no_second_copy_of_the_weights(tmp_path, monkeypatch):
    save(make(), tmp_path / "x", "exact")
    alive: list[weakref.ref] = []
    decode = store.Packed.__getitem__

    def counted(packed, name):
        assert sum(ref() is not None for ref in alive) <= 1
        array = decode(packed, name)
        alive.append(weakref.ref(array))
        return array

    monkeypatch.setattr(store.Packed, "__getitem__", counted)
    load(tmp_path / "x")
    assert alive


def test_a_captioner_beyond_the_memory_at_hand_is_an_error_of_one_line(tmp_path, monkeypatch):
    save(make(), tmp_path / "x")

    def to_empty(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory:\n you tried to allocate ...")

    monkeypatch.setattr(ImageCaptioner, "to_empty", to_empty)
    with pytest.raises(FormatError, match=r"x: needs [\d,]+ bytes of memory"):
        load(tmp_path / "x")


def test_non_finite_pixels_in_a_file_are_refused(tmp_path):
    save(make(), tmp_path / "x")
    packed = store.load(tmp_path / "x")
    for pixels in ({"mean": [1.0]}, {"scale": [0.0] * 3}, [1], "usual", {"std": [1.0] * 3}):
        config = copy.deepcopy(packed.config) | {"pixels": pixels}
        store.save(dict(packed), tmp_path / "lie", config=config, vocabulary=packed.vocabulary)
        with pytest.raises(FormatError, match=r"lie: its model configuration is damaged \(pixels"):
            load(tmp_path / "lie")
    assert np.isfinite(packed["encoder.conv0.weight"]).all()
