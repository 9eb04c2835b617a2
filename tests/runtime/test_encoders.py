"""Encoders as programs: native library and numpy give what the torch modules give, dense and pruned, at any size."""

import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from laconic.errors import FormatError
from laconic.models.encoders import build_encoder, load_imagenet, normalize
from laconic.native.library import library
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import NONE, Place
from laconic.runtime.plan import Plan
from laconic.runtime.program import Builder
from laconic.runtime.rules_encoders import RULES, plan_encoder
from laconic.spec.encoders import ENCODERS, cells_of, channels_of, normalization_of
from laconic.spec.model import EncoderConfig
from laconic.store import Packed, load, save

NETWORKS = [
    "toy", "mobilenet_v1_025", "mobilenet_v2", "efficientnet_lite0", "efficientnet_lite2", "inception_v1", "vgg_small",
    "convnet",
]  # fmt: skip
HELD = runpy.run_path(str(Path(__file__).parents[1] / "held.py"))
PATHS = [NativePath, NumpyPath] if library() else [NumpyPath]


@cache
def random_encoder(name: str, stride: int, sparsity: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(5)
    encoder = build_encoder(EncoderConfig(name, stride=stride)).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.ndim == 1:
                weight.normal_(std=0.3)
            elif weight.shape[1] > 1:
                weight *= torch.rand_like(weight) >= sparsity
    return encoder


def held(encoder: torch.nn.Module) -> Packed:
    return HELD["held"](encoder, "encoder.")


def encoder_plan(packed: Packed, config: EncoderConfig, *, pools: bool = True) -> Plan:
    """A plan of an encoder alone, with the least that a plan needs beside it."""
    builder, channels, normalization = Builder(), channels_of(config), normalization_of(config)
    grid = builder.buffer(channels.grid, "POSITIONS")
    pooled = builder.buffer(channels.pooled, "IMAGES") if pools else NONE
    logits = builder.buffer(5, "ROWS")
    plan_encoder(builder, packed, config, Place(grid), pooled)
    facts = {
        "grid": grid, "pooled": pooled, "logits": logits, "channels": channels.grid, "side": config.size,
        "pooled_channels": channels.pooled, "positions": cells_of(config), "scale": normalization.scale,
        "shift": normalization.shift, "pad": 0, "unk": 1, "bos": 2, "eos": 3,
    }  # fmt: skip
    return builder.finish(facts, ["pad", "unk", "bos", "eos", "word"])


def photo(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)


def check_features(encoder: torch.nn.Module, packed: Packed, config: EncoderConfig) -> None:
    pixels = photo(config.size)
    with torch.inference_mode():
        expected = encoder(normalize(torch.from_numpy(pixels[None]), normalization_of(config)))
    plan = encoder_plan(packed, config)
    for path in PATHS:
        grid, pooled = path(plan).features(pixels)
        for found, wanted in ((grid, expected.grid[0].numpy()), (pooled, expected.pooled[0].numpy())):
            assert wanted.std() > 0
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("stride", "sparsity"), [(16, 0.0), (32, 0.8)])
@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_those_of_torch(name, stride, sparsity):
    encoder = random_encoder(name, stride, sparsity)
    check_features(encoder, held(encoder), EncoderConfig(name, size=96, stride=stride))


@pytest.mark.parametrize(
    ("name", "size"),
    [("inception_v1", 33), *((name, size) for name in NETWORKS if name != "inception_v1" for size in (33, 75))],
)
def test_odd_sizes(name, size):
    encoder = random_encoder(name, 16)
    check_features(encoder, held(encoder), EncoderConfig(name, size=size, stride=16))


def test_of_a_packed_file(tmp_path):
    config = EncoderConfig("toy", size=40, stride=16)
    encoder = random_encoder("toy", 16, 0.8)
    save(held(encoder), tmp_path / "encoder.safetensors", values="exact")
    check_features(encoder, load(tmp_path / "encoder.safetensors"), config)


def test_every_encoder_but_detectors_has_a_rule():
    assert {name for name, row in ENCODERS.items() if not row.detects} == set(RULES)


@pytest.mark.parametrize(
    ("name", "file"),
    [("mobilenet_v2", "mobilenet_v2_1.0_224.npz"), ("efficientnet_lite0", "efficientnet_lite0.npz")],
)
def test_published_weights_on_a_large_picture(name, file, shared):
    weights = shared / "data/encoders" / file
    if not weights.exists():
        pytest.skip(f"no weights at {weights}")
    config = EncoderConfig(name, size=224, stride=16)
    encoder = build_encoder(config).eval()
    load_imagenet(encoder, weights)
    check_features(encoder, held(encoder), config)


@pytest.mark.parametrize("name", ["toy", "mobilenet_v1_025", "mobilenet_v2", "efficientnet_lite0"])
def test_what_nobody_reads_is_not_computed(name):
    config = EncoderConfig(name, size=64, stride=16)
    packed = held(random_encoder(name, 16))
    whole, part = encoder_plan(packed, config), encoder_plan(packed, config, pools=False)
    assert len(part.operations) < len(whole.operations)
    assert len(part.data) < len(whole.data)
    np.testing.assert_array_equal(NumpyPath(part).features(photo(64))[0], NumpyPath(whole).features(photo(64))[0])


def test_tables_share_memory():
    plan = encoder_plan(held(random_encoder("mobilenet_v1_025", 16)), EncoderConfig("mobilenet_v1_025", 96, 16))
    apart = sum(int(b["rows"]) * int(b["columns"]) for b in plan.buffers)
    assert plan.header["scratch"] < apart / 3


def test_weights_of_another_network_are_refused():
    packed = held(random_encoder("convnet", 16))
    with pytest.raises(FormatError, match=r"captioner\.safetensors: holds no encoder\.conv4\.weight"):
        encoder_plan(packed, EncoderConfig("convnet", stride=32))


def test_weights_of_another_width_are_refused():
    packed = held(random_encoder("mobilenet_v1_025", 16))
    with pytest.raises(FormatError, match="the grid has 128 channels, mobilenet_v1_050 has 256 there"):
        encoder_plan(packed, EncoderConfig("mobilenet_v1_050", stride=16))


def test_kernels_of_another_shape_are_refused():
    packed = held(random_encoder("convnet", 16))
    packed["encoder.conv1.weight"] = packed["encoder.conv1.weight"][:, :-1]
    with pytest.raises(FormatError, match=r"conv1 has weights \(48, 23, 3, 3\) and bias \(48,\), expected"):
        encoder_plan(packed, EncoderConfig("convnet", stride=16))
