"""Captioners that share weights, in everything that reads a captioner's weights: what is shared counts once."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.accounting import caption_operations, count_weights, matrices, non_zeros
from laconic.captioner.engine import Engine
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.compress.sites import prunable
from laconic.decode.search import Decoding
from laconic.errors import FormatError
from laconic.recipes.calibration import calibrate, own_batches
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

SIZES = {"layers": 4, "width": 16, "feed_forward": 24, "heads": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "kv": {"share_attention": "kv"},
    "qk": {"share_attention": "qk", "share_layers": [0, 1, 0, 1]},
    "acort": {"share_attention": "kv", "share_layers": [0, 0, 1, 1]},
}
VOCABULARY = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(20))))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)


def make(**options: Any) -> ImageCaptioner:
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("toy", 64, 16), DecoderConfig("object_relation", {**SIZES, **options}))
    captioner = ImageCaptioner(config, VOCABULARY).eval()
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if parameter.ndim == 1 and "norm" not in name:
                parameter.normal_(0, 0.3)
            elif name.startswith("decoder") and parameter.ndim > 1:
                parameter.mul_(2)
    return captioner


@pytest.fixture(params=VARIANTS)
def captioner(request: pytest.FixtureRequest) -> ImageCaptioner:
    return make(**VARIANTS[request.param])


def test_a_file_holds_what_is_shared_once_and_both_backends_say_the_same(captioner: ImageCaptioner, tmp_path: Path):
    said = captioner.caption(list(PIXELS), Decoding(3, 8))
    assert len(set(said)) > 1
    for values in ("exact", "half"):
        save(captioner, tmp_path / values, values)
        packed = store.load(tmp_path / values)
        assert set(packed.entries) == {name for name, _ in captioner.named_parameters()}
        assert load(tmp_path / values).caption(list(PIXELS), Decoding(3, 8)) == said
        assert Engine.load(tmp_path / values).caption(list(PIXELS), Decoding(3, 8)) == said
    unshared = save(make(), tmp_path / "unshared", "exact")
    assert (tmp_path / "exact").stat().st_size < unshared


def test_a_calibrated_file_is_what_was_calibrated(captioner: ImageCaptioner, tmp_path: Path):
    rounded = copy.deepcopy(captioner)
    steps = calibrate(rounded, "compact", own_batches(captioner, list(PIXELS[:3])))
    save(rounded, tmp_path / "file", "compact", steps=steps)
    back = load(tmp_path / "file").state_dict()
    shared = [name for name in steps if "key_value.weight" in name or "query_key.weight" in name]
    assert shared
    for name in steps:
        torch.testing.assert_close(back[name], rounded.state_dict()[name], rtol=0, atol=1e-6)
    logits = [one(*own_batches(captioner, list(PIXELS[3:]))[0]) for one in (captioner, rounded)]
    assert ((logits[0] - logits[1]).norm() / logits[0].norm()).item() < 0.1


@pytest.mark.parametrize("method", [Magnitude(0.6), Supermask(0.6)])
def test_shared_weights_have_one_mask_and_the_sparsity_is_theirs(captioner: ImageCaptioner, method: Any):
    decoder = captioner.decoder
    masked = prunable(decoder)
    assert all(len(sites) == 1 for sites in masked.values())
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-3)
    pruner = Pruner(decoder, method, steps=4)
    pruner.attach(optimizer)
    with torch.no_grad():
        inputs = captioner.encode(torch.from_numpy(PIXELS[:2]))
    tokens = torch.tensor([[[2, 5, 6, 3]]] * 2)
    for _ in range(4):
        optimizer.zero_grad()
        decoder.train()(inputs, tokens).square().mean().backward()
        optimizer.step()
    pruner.finalize()
    found = count_weights(decoder)
    assert found.prunable == sum(p.numel() for p in decoder.parameters() if p.ndim > 1)
    assert found.prunable_non_zeros == found.prunable - int(0.6 * found.prunable)


def test_accounting_counts_weights_once_and_operations_at_each_place(tmp_path: Path):
    plain, shared = make(), make(**VARIANTS["acort"])
    save(shared, tmp_path / "file", "exact")
    counted = sum(int(np.prod(row["shape"])) for row in matrices(tmp_path / "file"))
    assert counted == sum(p.numel() for p in shared.parameters() if p.ndim > 1)
    assert non_zeros(shared)["decoder_weights"] == sum(p.numel() for p in shared.decoder.parameters())
    # the same products at each place, but for a projection less; the memory's keys and values once for two places
    width, cells, words = SIZES["width"], 16, 10
    saved = 4 * width**2 * (cells + words) + (4 * 2 - 2) * width**2 * cells
    # relations of a layer are computed where it follows itself once
    saved += 2 * 64 * SIZES["heads"] * cells**2
    assert caption_operations(plain).decoder - caption_operations(shared).decoder == 2 * saved


def test_a_file_that_lies_about_sharing_is_refused(tmp_path: Path):
    save(make(**VARIANTS["acort"]), tmp_path / "file", "exact")
    packed = store.load(tmp_path / "file")
    for name, value in (("share_layers", [0, 1, 2, 3]), ("share_layers", [0, 5]), ("share_attention", "none")):
        config = copy.deepcopy(packed.config)
        config["model"]["decoder"]["options"][name] = value
        store.save(dict(packed), tmp_path / "lie", config=config, vocabulary=packed.vocabulary)
        for opened in (load, Engine.load):
            with pytest.raises((FormatError, KeyError)):
                opened(tmp_path / "lie")
