"""The verbs: what is saved comes back, for modules and plain arrays."""

import gzip
import hashlib
import json
import runpy
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from torch import nn

from laconic import store
from laconic.errors import ConfigError, FormatError
from laconic.store import codecs, container, index
from laconic.store.index import Entry, Index
from laconic.store.packed import DATA, INDEX, metadata_of

READER = Path(__file__).parents[2] / "docs" / "format_reader.py"


class Tiny(nn.Module):
    """Every kind of entry: sparse, dense, 0-d, 4-D, tied, integer and boolean buffers, empty."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(50, 8)
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.out = nn.Linear(8, 50)
        self.out.weight = self.embed.weight
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("empty", torch.zeros(0, 3))
        with torch.no_grad():
            self.embed.weight.mul_(torch.rand(50, 8) < 0.1)
            self.conv.weight.mul_(torch.rand(3, 2, 3, 3) < 0.3)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "tiny.safetensors"


def test_a_module_comes_back_into_a_module(path):
    model, other = Tiny(0), Tiny(1)
    store.save(model, path, values="exact")
    store.load_into(path, other)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], weight, rtol=0, atol=0)
    assert other.out.weight is other.embed.weight


def test_load_is_a_mapping_in_the_models_order_with_config_and_vocabulary(path):
    model = Tiny()
    config = {"width": 8, "name": "tiny é", "nested": {"rates": [0.5, None, True]}}
    size = store.save(model, path, config=config, vocabulary=["<pad>", "a", "naïve", "犬"], provenance={"from": "x"})
    packed = store.load(path)
    assert size == path.stat().st_size == packed.file_bytes
    assert list(packed) == list(model.state_dict())
    assert (packed.config, packed.version) == (config, 2)
    assert packed.vocabulary == ["<pad>", "a", "naïve", "犬"]
    assert packed.provenance == {"from": "x"}
    for name, weight in model.state_dict().items():
        expected = weight.half().float() if weight.is_floating_point() else weight
        np.testing.assert_array_equal(packed[name], expected.numpy(), strict=True)
    with pytest.raises(KeyError):
        packed["nothing"]
    packed["scale"][...] = 9  # the caller's own copy, not the file
    assert packed["scale"] == 0.5


def test_membership_decodes_nothing(path, monkeypatch):
    store.save({"w": np.ones(3, np.float32)}, path)
    packed = store.load(path)
    monkeypatch.setattr(store.Packed, "__getitem__", None)
    assert "w" in packed
    assert "v" not in packed
    assert store.inspect(path).non_zeros == 3


@pytest.mark.parametrize("values", store.VALUES)
def test_tied_tensors_are_stored_once_and_repacking_gives_the_same_bytes(path, values):
    store.save(Tiny(), path, values=values)
    packed = store.load(path)
    assert packed.ties == {"out.weight": "embed.weight"}
    assert packed.stored_bytes("out.weight") == 0 < packed.stored_bytes("embed.weight")
    np.testing.assert_array_equal(packed["out.weight"], packed["embed.weight"])
    first = path.read_bytes()
    store.save(packed, path, values=values)  # over the very file that is open
    assert path.read_bytes() == first


def test_equal_but_separate_tensors_are_not_tied(path):
    one = torch.ones(4)
    views = {"a": one, "b": one.clone(), "c": one[:2], "d": one.view(2, 2), "e": one}
    store.save(views, path)
    assert store.load(path).ties == {"e": "a"}
    array = np.ones(4, np.float32)
    store.save({"a": array, "b": array, "c": array.copy(), "d": array[::2]}, path)
    assert store.load(path).ties == {"b": "a"}


def test_memory_layout_and_half_precision_sources_do_not_matter(path):
    array = torch.arange(12.0).view(3, 4)
    weights = {
        "transposed": array.t(),
        "bfloat16": array.bfloat16(),
        "half": array.half(),
        "big endian": array.numpy().astype(">f4"),
        "big endian integers": array.numpy().astype(">i8"),
        "trained": nn.Parameter(array),
    }
    store.save(weights, path, values="exact")
    packed = store.load(path)
    np.testing.assert_array_equal(packed["transposed"], array.t().numpy())
    for name in list(weights)[1:]:
        np.testing.assert_array_equal(packed[name], array.numpy())
        assert packed[name].dtype.isnative


def test_every_safetensors_reader_opens_and_lists_the_file(path):
    store.save(Tiny(), path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.keys() == ["_index", "data"]
        assert file.metadata().keys() == {"format", "index_crc32", "sha256", "version"}
        body = file.get_tensor("_index").numpy().tobytes() + file.get_tensor("data").numpy().tobytes()
        assert hashlib.sha256(body).hexdigest() == file.metadata()["sha256"]


def test_the_reader_beside_the_specification_reads(path, golden):
    read = runpy.run_path(str(READER))["read"]
    store.save(Tiny(), path, values="fine", config={"width": 8, "name": "é"})
    for file in (path, *(golden / "store" / f"{name}.safetensors" for name in ("half", "compact", "trained"))):
        tensors, config = read(file)
        assert config == {"width": 8, "name": "é"}
        packed = store.load(file)
        assert set(tensors) == set(packed)
        for name, array in packed.items():
            np.testing.assert_array_equal(tensors[name], array, strict=True)


def test_inspection_counts_what_is_stored(path):
    model = Tiny()
    store.save(model, path, config={"width": 8}, vocabulary=["a", "b"])
    found = store.inspect(path)
    stored = {name: w for name, w in model.state_dict().items() if name != "out.weight"}
    non_zeros = sum(int(w.count_nonzero()) for w in stored.values())
    weights = sum(w.numel() for w in stored.values())
    assert (found.weights, found.non_zeros, found.dense_bytes) == (weights, non_zeros, 4 * weights)
    assert found.sparsity == pytest.approx(1 - non_zeros / weights)
    assert found.ratio == pytest.approx(4 * weights / path.stat().st_size)
    rows = {row["name"]: row for row in json.loads(json.dumps(found.as_dict()))["tensors"]}
    assert sum(row["bytes"] for row in rows.values()) < path.stat().st_size
    embed = rows["embed.weight"]
    assert embed["codec"] == "gaps f16"
    assert embed["bits_per_non_zero"] == 8 * embed["bytes"] / embed["non_zeros"]
    assert 0.6 * embed["bytes"] < embed["bound_bytes"] < embed["bytes"]
    assert rows["scale"] | {"bytes": 0} == {
        "name": "scale", "shape": [], "dtype": "F32", "codec": "dense f16", "non_zeros": 1, "bytes": 0,
        "bound_bytes": 0.0, "tied_to": None, "bits_per_non_zero": rows["scale"]["bits_per_non_zero"],
    }  # fmt: skip
    assert (rows["out.weight"]["bits_per_non_zero"], rows["out.weight"]["bound_bytes"]) == (None, 0)
    assert found.gzip_bytes is None
    assert found.coo_bytes == sum(
        min(4 * w.numel(), (8 * w.dim() + 4) * int(w.count_nonzero())) for w in stored.values()
    )
    flat = b"".join(store.load(path)[name].astype(np.float32).tobytes() for name in stored)
    assert store.inspect(path, gzip=True).gzip_bytes == len(gzip.compress(flat, 6))


def write_zeros(path, size):
    """A file of some 400 bytes that claims so many zeros."""
    sealed = codecs.seal(b"")
    entry = Entry("w", (size,), "F32", "gaps", "f16", 0, len(sealed), 0)
    text, data = index.dump(Index({"w": entry}, "half", {}, None, {})), np.frombuffer(sealed, np.uint8)
    container.write(path, {INDEX: np.frombuffer(text, np.uint8), DATA: data}, metadata_of(text, data))
    assert path.stat().st_size < 500


def test_a_tiny_file_that_claims_very_many_zeros_is_inspected_at_once(path):
    size = 2**31 - 1
    write_zeros(path, size)
    found = store.inspect(path, gzip=True)
    assert (found.weights, found.non_zeros, found.gzip_bytes) == (size, 0, None)


def test_a_tiny_file_that_claims_very_many_zeros_is_compared_and_unpacked_in_little_memory(path, tmp_path):
    write_zeros(path, 2**31 - 1)
    assert store.compare(path, path).same
    write_zeros(path, 2**24 + 1)
    tracemalloc.start()
    try:
        size = store.unpack(path, tmp_path / "plain")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert size == (tmp_path / "plain").stat().st_size > 2**26


def test_the_bound_is_that_of_mask_and_value_codes(path):
    rng = np.random.default_rng(0)
    codes = np.rint(5 * rng.standard_normal((400, 300))) * (rng.random((400, 300)) < 0.1)
    store.save({"w": codes.astype(np.float32)}, path, values="compact", steps={"w": 1.0})
    (info,) = store.inspect(path).tensors
    kept = np.count_nonzero(codes) / codes.size
    mask = codes.size * (-kept * np.log2(kept) - (1 - kept) * np.log2(1 - kept))
    shares = np.unique(codes[codes != 0], return_counts=True)[1] / np.count_nonzero(codes)
    entropy = -(shares * np.log2(shares)).sum() * np.count_nonzero(codes)
    assert info.bound_bytes == pytest.approx((mask + entropy) / 8, rel=0.001)
    assert info.bytes < 1.02 * info.bound_bytes


# Steps


def test_weights_on_a_grid_are_kept_as_they_are(path):
    codes = np.array([[0, 3, -1], [0, 0, 500]])
    weights = {"w": (codes * 0.3).astype(np.float32), "b": np.array([0.5, 0.25], np.float32)}
    weights["w"] = codes.astype(np.float32) * np.float32(0.3)
    store.save(weights, path, values="fine", steps={"w": 0.3})
    packed = store.load(path)
    np.testing.assert_array_equal(packed["w"], weights["w"])
    assert packed.steps["w"] == np.float32(0.3)
    store.save(weights, path, values="compact")
    assert not np.array_equal(store.load(path)["w"], weights["w"])


def test_a_file_of_another_precision_is_rounded_anew(path, tmp_path):
    store.save(Tiny(), path, values="fine")
    store.save(store.load(path), tmp_path / "compact", values="compact")
    fine, compact = store.load(path), store.load(tmp_path / "compact")
    assert (fine.precision, compact.precision) == ("fine", "compact")
    assert compact.steps["conv.weight"] > 5 * fine.steps["conv.weight"]


@pytest.mark.parametrize(
    ("steps", "values", "error", "message"),
    [
        ({"w": 0.3}, "half", ConfigError, "fine, compact"),
        ({"v": 0.3}, "compact", ConfigError, "'v', which is no tensor"),
        ({"t": 0.3}, "compact", ConfigError, "'t', which is tied to 'w'"),
        ({"w": 0.3}, "compact", FormatError, "'w' has values that are no multiples"),
        ({"n": 1.0}, "compact", FormatError, "'n' has a step, but holds whole numbers"),
    ],
)
def test_steps_that_do_not_fit_are_refused(path, steps, values, error, message):
    array = np.array([0.1, 0.2], np.float32)
    with pytest.raises(error, match=message):
        store.save({"w": array, "t": array, "n": np.array([1])}, path, values=values, steps=steps)
    assert not path.exists()


# Other ways to read


def test_a_stream_gives_what_the_file_holds(path):
    store.save(Tiny(), path, values="compact")
    packed = store.load(path)
    with open(path, "rb") as file:
        found = dict(store.stream(file))
    assert set(found) == set(packed)
    for name, array in found.items():
        np.testing.assert_array_equal(array, packed[name], strict=True)


@pytest.mark.parametrize("values", store.VALUES)
def test_unpacking_gives_an_ordinary_file_back(path, tmp_path, values):
    store.save(Tiny(), path, values=values, config={"a": 1}, vocabulary=["x"])
    size = store.unpack(path, tmp_path / "plain")
    assert size == (tmp_path / "plain").stat().st_size
    found = safetensors.numpy.load_file(tmp_path / "plain")
    packed = store.load(path)
    assert set(found) == set(packed)
    for name, array in found.items():
        np.testing.assert_array_equal(array, packed[name], strict=True)
    with safetensors.safe_open(tmp_path / "plain", framework="np") as file:
        assert file.metadata() == {"config": '{"a": 1}', "vocabulary": '["x"]', "provenance": "{}", "format": "pt"}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.tensor([1, float("nan")]),
            "not finite: of weights whose training has diverged, or of a constant such as",
        ),
        (torch.tensor([70000.0]), "values='exact'"),
        (torch.zeros(2, dtype=torch.float64), "convert it to float32"),
        (torch.zeros(2, dtype=torch.complex64), "convert it to float32"),
        (torch.eye(2).to_sparse(), "cannot be turned into an array"),
        (torch.zeros(2, device="meta"), "cannot be turned into an array"),
        (np.array(["a"]), "convert it to float32"),
        (np.zeros((1,) * 9, np.float32), "shape must be a list of at most 8"),
        ("text", "neither a tensor nor an array"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(path, tensor, message):
    with pytest.raises(FormatError, match=rf"tiny\.safetensors: .*'layer\.weight'.* {message}"):
        store.save({"fine": torch.ones(2), "layer.weight": tensor}, path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["", "__metadata__", 3, "\ud800"])
def test_names_no_safetensors_file_can_hold(path, name):
    with pytest.raises(FormatError, match=r"name"):
        store.save({name: torch.ones(2)}, path)


@pytest.mark.parametrize(
    "about",
    [
        {"config": {"x": float("nan")}},
        {"config": {"x": object()}},
        {"config": [1]},
        {"config": {"x": "y" * 2**24}},
        {"vocabulary": ["a", 3]},
        {"vocabulary": ["\udc00"]},
    ],
)
def test_configuration_and_vocabulary_must_fit_json_and_the_header(path, about):
    with pytest.raises(FormatError, match=r"configuration|vocabulary|Unicode"):
        store.save({"w": torch.ones(2)}, path, **about)


def test_unknown_values_lists_the_choices(path):
    with pytest.raises(ConfigError, match="exact, half, fine, compact"):
        store.save({}, path, values="tiny")


def test_a_model_that_does_not_fit_is_told_and_left_alone(path):
    store.save({"a": torch.ones(2), "c": torch.ones(3), "n": torch.tensor(3)}, path)
    model = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(4)})
    with pytest.raises(FormatError, match=r"1 missing in the file: 'b'; 1 not in the model: 'n'; 1 of") as e:
        store.load_into(path, model)
    assert "'c' (file: [3] F32, model: [4] torch.float32)" in str(e.value)
    assert not model["a"].any()
    store.save({str(i): torch.ones(1) for i in range(6)}, path)
    with pytest.raises(FormatError, match=r"fit the model; 6 not in the model: '0', '1', '2', \.\.\.;"):
        store.load_into(path, nn.Module())


def test_a_model_in_another_float_keeps_its_dtype_and_integers_must_match(path):
    store.save(nn.Linear(3, 2), path)
    model = nn.Linear(3, 2).bfloat16()
    store.load_into(store.load(path), model)
    expected = torch.from_numpy(store.load(path)["weight"]).bfloat16()
    torch.testing.assert_close(model.weight.data, expected)
    store.save({"n": torch.tensor(300)}, path)
    counter = nn.Module()
    counter.register_buffer("n", torch.tensor(3, dtype=torch.uint8))
    with pytest.raises(FormatError, match="another shape or kind"):
        store.load_into(path, counter)


def test_damage_found_while_decoding_leaves_the_model_unchanged(path):
    store.save({"a": torch.ones(2), "b": torch.tensor([1.0, 2.0])}, path, values="exact")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    model = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2)})
    with pytest.raises(FormatError, match=r"tiny.safetensors: tensor 'b': .*checksum"):
        store.load(path)["b"]
    with pytest.raises(FormatError, match=r"tiny.safetensors: .*SHA-256"):
        store.load_into(path, model)
    assert not model["a"].any()


def test_the_package_needs_no_torch():
    code = "import sys, laconic.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
