"""Encoders: sizes of the paper, ImageNet weights against a direct evaluation, wrong weight files."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.data import preprocess, read_image, resize
from laconic.errors import ConfigError, FormatError
from laconic.models.encoders import build_encoder, load_imagenet, normalize
from laconic.models.inception_v1 import InceptionV1
from laconic.models.layers import fold_batch_norm
from laconic.models.mobilenet import MobileNetV1
from laconic.models.soft_attention import SoftAttention
from laconic.spec.captioners import SoftAttentionConfig
from laconic.spec.encoders import ENCODERS as FACTS
from laconic.spec.encoders import channels_of, normalization_of
from laconic.spec.model import EncoderConfig

CHANNELS = {  # grid at stride 16, grid at stride 32, pooled
    "mobilenet_v1": (512, 1024, 1024),
    "mobilenet_v1_050": (256, 512, 512),
    "mobilenet_v1_025": (128, 256, 256),
    "mobilenet_v2": (576, 1280, 1280),
    "efficientnet_lite0": (672, 1280, 1280),
    "efficientnet_lite1": (672, 1280, 1280),
    "efficientnet_lite2": (720, 1280, 1280),
    "inception_v1": (832, 1024, 1024),
    "vgg_small": (128, 128, 128),
    "convnet": (128, 128, 128),
}

GRIDS = [name for name, row in FACTS.items() if not row.detects]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_inception_has_the_published_numbers():
    named = dict(InceptionV1(norm=True).named_parameters())
    kernels = [p for p in named.values() if p.ndim == 4]
    assert (len(kernels), sum(p.numel() for p in kernels)) == (57, 5_585_344)
    assert sum(p.numel() for n, p in named.items() if n.endswith("norm.weight")) == 7_280
    assert len(named) == 3 * 57  # kernel, gamma, beta


@pytest.mark.parametrize(
    ("width", "word", "hidden", "millions"),
    [(1.0, 256, 512, 15.33), (0.5, 88, 128, 3.37), (0.25, 88, 128, 2.67)],
)
def test_mobilenet_captioners_have_the_sizes_of_table_4(width, word, hidden, millions):
    encoder = MobileNetV1(width, norm=True)
    channels = int(1024 * width)
    decoder = SoftAttention(SoftAttentionConfig(9962, channels, channels, word, hidden))
    assert round((count(encoder) + count(decoder)) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "published"),  # without their classifiers, 1280 x 1000 and 1000 biases
    [("efficientnet_lite0", 4_652_008), ("efficientnet_lite1", 5_416_680), ("efficientnet_lite2", 6_092_072)],
)
def test_efficientnet_lite_has_the_published_numbers(name, published):
    assert count(build_encoder(EncoderConfig(name, norm=True))) == published - 1_281_000


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("stride", "side"), [(16, 14), (32, 7)])
def test_grids(name, stride, side):
    encoder = build_encoder(EncoderConfig(name, stride=stride, norm=False)).eval()
    with torch.inference_mode():
        features = encoder(torch.zeros(1, 3, 224, 224))
    middle, last, pooled = CHANNELS[name]
    channels = middle if stride == 16 else last
    assert features.grid.shape == (1, side * side, channels)
    assert features.pooled.shape == (1, pooled)
    assert channels_of(EncoderConfig(name, stride=stride)) == (channels, pooled)


@pytest.mark.parametrize("name", GRIDS)
def test_coarse_grid_averages_to_the_pooled_feature(name):
    encoder = build_encoder(EncoderConfig(name, stride=32, norm=False)).eval()
    with torch.inference_mode():
        features = encoder(torch.rand(2, 3, 64, 32))
    assert features.grid.shape[1] == 2 * 1
    torch.testing.assert_close(features.grid.mean(1), features.pooled)


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_025", "mobilenet_v2", "efficientnet_lite0", "inception_v1", "vgg_small"]
)
def test_folding_a_whole_encoder_keeps_its_features(name):
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name, stride=16, norm=True))
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        for _ in range(2):
            encoder(images)
        expected = encoder.eval()(images)
        fold_batch_norm(encoder)
        folded = encoder(images)
    assert encoder.state_dict().keys() == build_encoder(EncoderConfig(name, stride=16, norm=False)).state_dict().keys()
    assert expected.grid.abs().max() > 0.1
    torch.testing.assert_close(folded.grid, expected.grid, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(folded.pooled, expected.pooled, rtol=1e-3, atol=1e-4)


# The published weights, evaluated directly in float64


def direct(x: Tensor, arrays: dict[str, Tensor], name: str, stride: int = 1, linear: bool = False) -> Tensor:
    """One convolution of a weight file."""
    weight = arrays[f"{name}.weight"]
    kernel = weight.shape[-1]
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    groups = x.shape[1] // weight.shape[1]
    y = F.conv2d(x, weight, arrays[f"{name}.bias"], stride, groups=groups)
    return y if linear else y.clamp(0, 6)


def direct_v1(x: Tensor, arrays: dict[str, Tensor]) -> dict[int, Tensor]:
    middle = x = direct(x, arrays, "conv0", 2)
    for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), start=1):
        x = direct(x, arrays, f"block{i}.depthwise", stride)
        x = direct(x, arrays, f"block{i}.pointwise")
        if i == 11:
            middle = x
    return {16: middle, 32: x}


def direct_inverted(x: Tensor, arrays: dict[str, Tensor], strides: tuple[int, ...]) -> dict[int, Tensor]:
    """MobileNet-V2 and EfficientNet-Lite, by the stride of each block."""
    middle = x = direct(x, arrays, "conv0", 2)
    for i, stride in enumerate(strides):
        block, y = f"block{i}", x
        if f"{block}.expand.weight" in arrays:
            y = direct(y, arrays, f"{block}.expand")
        if 2 not in strides[i + 1 :] and stride == 2:
            middle = y
        y = direct(y, arrays, f"{block}.depthwise", stride)
        y = direct(y, arrays, f"{block}.project", linear=True)
        x = x + y if y.shape == x.shape else y
    return {16: middle, 32: direct(x, arrays, "head")}


def strides_of(*stages: int) -> partial[dict[int, Tensor]]:
    """`direct_inverted` with so many blocks a stage, as published: all but the first, fifth and last begin with 2."""
    firsts = (1, 2, 2, 2, 1, 2, 1)
    strides = [stride for n, first in zip(stages, firsts, strict=True) for stride in (first, *[1] * (n - 1))]
    return partial(direct_inverted, strides=tuple(strides))


@pytest.fixture(scope="module")
def photos(shared):
    """Four real photos at 224, as the encoders want them."""
    files = sorted((shared / "data/flickr8k/images").glob("*.jpg"))[:2000:500]
    return torch.from_numpy(np.stack([preprocess(read_image(file), 224) for file in files]))


@pytest.mark.parametrize(
    ("name", "file", "reference"),
    [
        ("mobilenet_v1", "mobilenet_v1_1.0_224.npz", direct_v1),
        ("mobilenet_v2", "mobilenet_v2_1.0_224.npz", strides_of(1, 2, 3, 4, 3, 3, 1)),
        ("efficientnet_lite1", "efficientnet_lite1.npz", strides_of(1, 3, 3, 4, 4, 5, 1)),
    ],
)
def test_imagenet_weights_agree_with_a_direct_evaluation(name, file, reference, photos, shared):
    path = shared / "data/encoders" / file
    with np.load(path) as npz:
        arrays = {key: torch.from_numpy(npz[key]).double() for key in npz.files}
    for images in (photos[:2], photos[2:3, :, :97, :130]):  # odd sizes, too
        expected = reference(images.double(), arrays)
        for stride in (16, 32):
            encoder = build_encoder(EncoderConfig(name, stride=stride, norm=False)).eval()
            load_imagenet(encoder, path)
            with torch.inference_mode():
                features = encoder(images)
            grid = expected[stride].flatten(2).transpose(1, 2)
            assert grid.std() > 0.1
            torch.testing.assert_close(features.grid.double(), grid, rtol=0, atol=1e-4)
            pooled = expected[32].mean((2, 3))
            torch.testing.assert_close(features.pooled.double(), pooled, rtol=0, atol=1e-4)


def summary(values: Tensor) -> dict[str, object]:
    """As the golden values are given."""
    flat = values.flatten()
    named = {"mean_abs": flat.abs().mean(), "max": flat.max(), "first": flat[0], "last": flat[-1]}
    return {"shape": tuple(values.shape), **{key: pytest.approx(float(v), 1e-3, 1e-3) for key, v in named.items()}}


@pytest.mark.parametrize(("name", "size"), [("efficientnet_lite0", 224), ("efficientnet_lite1", 240)])
def test_efficientnet_lite_sees_what_the_published_networks_see(name, size, golden, shared):
    """Features and classes of photos, computed elsewhere from the same weights."""
    path = shared / f"data/encoders/{name}.npz"
    config = EncoderConfig(name, size=size)
    encoder = build_encoder(config).eval()
    load_imagenet(encoder, path)
    with np.load(path) as arrays:
        weight, bias = arrays["classifier.weight"].astype(np.float32), arrays["classifier.bias"].astype(np.float32)
    expected = json.loads((golden / "encoders/efficientnet_lite.json").read_text())[name]
    folder = shared / "data/coco_sample"
    pixels = np.stack([resize(read_image(folder / photo.split("_")[1] / photo), size) for photo in expected])
    with torch.inference_mode():
        features = encoder(normalize(torch.from_numpy(pixels), normalization_of(config)))
    side = size // 32 + (size % 32 > 0)
    for i, wanted in enumerate(expected.values()):
        grid, pooled = features.grid[i : i + 1].mT.reshape(1, -1, side, side), features.pooled[i : i + 1]
        for part, found in (("grid", grid), ("pooled", pooled)):
            assert {**wanted[part], "shape": tuple(wanted[part]["shape"])} == summary(found), part
        logits = (pooled.numpy() @ weight.T + bias)[0]
        classes = np.argsort(-logits)[:3]
        assert classes.tolist() == [number for number, _ in wanted["top3"]]
        assert logits[classes] == pytest.approx([logit for _, logit in wanted["top3"]], rel=1e-3, abs=1e-3)


# Wrong weight files


@pytest.fixture
def small():
    return build_encoder(EncoderConfig("mobilenet_v1_025", stride=32, norm=False))


def arrays_of(encoder: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in encoder.state_dict().items()}


def test_weights_round_trip_and_other_arrays_are_passed_over(small, tmp_path):
    saved = arrays_of(build_encoder(EncoderConfig("mobilenet_v1_025", stride=32, norm=False)))
    np.savez(tmp_path / "w.npz", **saved, **{"classifier.weight": np.zeros((3, 4))})
    load_imagenet(small, tmp_path / "w.npz")
    assert all(np.array_equal(value, saved[name]) for name, value in arrays_of(small).items())


def hostile(kind: str, arrays: dict[str, np.ndarray], path) -> None:
    if kind == "missing":
        del arrays["block7.depthwise.weight"]
    elif kind == "shape":
        arrays["conv0.weight"] = np.zeros((8, 3, 1, 1), np.float32)
    elif kind == "objects":
        arrays["conv0.weight"] = np.array([print, {}], dtype=object)
    elif kind == "text":
        arrays["conv0.bias"] = np.array(["a"] * 8)
    if kind == "nofile":
        return
    if kind == "nozip":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    elif kind == "one-array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "folder":
        path.mkdir()
    else:
        np.savez(path, **arrays)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:-1000])
        elif kind == "flipped":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 255
            path.write_bytes(data)


@pytest.mark.parametrize(
    "kind",
    ["missing", "shape", "objects", "text", "nofile", "nozip", "one-array", "folder", "cut", "flipped"],
)
def test_wrong_weight_files_are_named_and_change_nothing(small, kind, tmp_path):
    before = {name: value.copy() for name, value in arrays_of(small).items()}
    path = tmp_path / "w.npz"
    hostile(kind, arrays_of(build_encoder(EncoderConfig("mobilenet_v1_025", stride=32, norm=False))), path)
    with pytest.raises(FormatError, match=r"w\.npz") as raised:
        load_imagenet(small, path)
    if kind == "missing":
        assert "block7.depthwise.weight" in str(raised.value)
    assert all(np.array_equal(value, before[name]) for name, value in arrays_of(small).items())


def test_an_array_of_another_size_is_refused_before_memory_is_taken(small, tmp_path, monkeypatch):
    arrays = arrays_of(build_encoder(EncoderConfig("mobilenet_v1_025", stride=32, norm=False)))
    np.savez_compressed(tmp_path / "w.npz", **arrays | {"conv0.weight": np.zeros(50_000_000, np.float32)})
    read: list[str] = []
    take = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda file, key: read.append(key) or take(file, key))
    with pytest.raises(FormatError, match=r"conv0\.weight has shape \(50000000,\)"):
        load_imagenet(small, tmp_path / "w.npz")
    assert not read


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_read_as_float32(small, tmp_path, dtype):
    arrays = arrays_of(build_encoder(EncoderConfig("mobilenet_v1_025", stride=32, norm=False)))
    np.savez(tmp_path / "w.npz", **{name: a.astype(dtype) for name, a in arrays.items()})
    load_imagenet(small, tmp_path / "w.npz")
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    np.testing.assert_allclose(arrays_of(small)["conv0.weight"], arrays["conv0.weight"], rtol=1e-3, atol=1e-6)


def test_unknown_names_and_strides_are_refused():
    with pytest.raises(ConfigError, match=r"resnet.*mobilenet_v2"):
        build_encoder(EncoderConfig("resnet", stride=32, norm=False))
    with pytest.raises(ConfigError, match="stride 8"):
        build_encoder(EncoderConfig("mobilenet_v2", stride=8, norm=False))
