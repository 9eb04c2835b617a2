"""Hostile files: damaged, lying or foreign, they give FormatError, at little memory."""

import errno
import hashlib
import io
import json
import os
import pickle
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from laconic import store
from laconic.errors import FormatError
from laconic.store import container

WEIGHTS = {
    "w": np.where(np.arange(700).reshape(20, 35) % 97 == 5, np.float32(1.5), np.float32(0)),
    "b": np.array([1.0, -2.0], np.float32),
    "n": np.array([3], np.int64),
    "m": np.array([True, False]),
}


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    ties = dict(WEIGHTS)
    ties["t"] = ties["w"]
    store.save(ties, path, config={"a": 1}, vocabulary=["x", "y"])
    return path


def use(path: Path) -> None:
    """Everything a user can do with a file."""
    packed = store.load(path)
    dict(packed.items())
    for name in packed:
        packed.csr(name)
    store.inspect(path).as_dict()


def header_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def rewrite(path: Path, header: object, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def seal(header: dict, text: bytes, data: bytes) -> bytes:
    """Mends sizes and checksums, as a forger would; returns the body."""
    metadata = header["__metadata__"]
    metadata["index_crc32"] = f"{zlib.crc32(text):08x}"
    metadata["sha256"] = hashlib.sha256(text + data).hexdigest()
    header["_index"].update(shape=[len(text)], data_offsets=[0, len(text)])
    header["data"].update(shape=[len(data)], data_offsets=[len(text), len(text) + len(data)])
    return text + data


def split(header: dict, body: bytes) -> tuple[bytes, bytes]:
    end = header["_index"]["data_offsets"][1]
    return body[:end], body[end:]


def change_index(path: Path, change) -> None:
    header, body = header_of(path)
    text, data = split(header, body)
    index = json.loads(zlib.decompress(text))
    change(index, {row["name"]: row for row in index["tensors"]})
    rewrite(path, header, seal(header, zlib.compress(json.dumps(index).encode()), data))


INDEX_LIES = {
    "shape": lambda index, by: by["w"].update(shape=[20, 2]),
    "negative": lambda index, by: by["w"].update(shape=[-20, -35]),
    "fraction": lambda index, by: by["w"].update(shape=[20.0, 35]),
    "truth": lambda index, by: by["b"].update(shape=[2, True]),
    "nine dimensions": lambda index, by: by["b"].update(shape=[2] + [1] * 8),
    "huge": lambda index, by: by["w"].update(shape=[2**31, 1]),
    "just allowed": lambda index, by: by["b"].update(shape=[2**31 - 1]),
    "just allowed and sparse": lambda index, by: by["w"].update(shape=[2**31 - 1], nnz=2**30),
    "empty and huge": lambda index, by: by["b"].update(shape=[0, 2**62], nnz=0),
    "fewer": lambda index, by: by["w"].update(nnz=3),
    "more": lambda index, by: by["b"].update(nnz=3),
    "one non-zero too few": lambda index, by: by["b"].update(nnz=1),
    "text": lambda index, by: by["b"].update(nnz="2"),
    "mask": lambda index, by: by["b"].update(mask="zip"),
    "mask list": lambda index, by: by["b"].update(mask=["dense"]),
    "values": lambda index, by: by["b"].update(values="raw"),
    "values list": lambda index, by: by["b"].update(values=[]),
    "other codec": lambda index, by: by["b"].update(mask="gaps"),
    "dtype": lambda index, by: by["b"].update(dtype="F16"),
    "integer": lambda index, by: by["b"].update(dtype="I64"),
    "dtype list": lambda index, by: by["b"].update(dtype=[]),
    "missing key": lambda index, by: by["b"].pop("nnz"),
    "unknown key": lambda index, by: by["b"].update(extra=1),
    "name number": lambda index, by: by["b"].update(name=1),
    "no name": lambda index, by: by["b"].update(name=""),
    "twice": lambda index, by: index["tensors"].append(by["b"]),
    "forgotten": lambda index, by: index["tensors"].remove(by["b"]),
    "other order": lambda index, by: index["tensors"].reverse(),
    "not a row": lambda index, by: index["tensors"].append("b"),
    "bytes": lambda index, by: by["b"].update(bytes=by["b"]["bytes"] + 1),
    "few bytes": lambda index, by: by["b"].update(bytes=3),
    "bytes of another": lambda index, by: (by["b"].update(bytes=by["b"]["bytes"] + 1), by["n"].update(bytes=12)),
    "tied to itself": lambda index, by: by["t"].update(tied_to="t"),
    "tied to nothing": lambda index, by: by["t"].update(tied_to="none"),
    "tied to tied": lambda index, by: index["tensors"].append({"name": "t2", "tied_to": "t"}),
    "tied in a circle": lambda index, by: (
        by["t"].update(tied_to="t2"),
        index["tensors"].append({"name": "t2", "tied_to": "t"}),
    ),
    "tied to a number": lambda index, by: by["t"].update(tied_to=3),
    "no config": lambda index, by: index.pop("config"),
    "config list": lambda index, by: index.update(config=[]),
    "config NaN": lambda index, by: index.update(config={"a": float("nan")}),
    "config surrogate": lambda index, by: index.update(config={"a": "\ud800"}),
    "provenance": lambda index, by: index.update(provenance=1),
    "precision": lambda index, by: index.update(precision="tiny"),
    "precision list": lambda index, by: index.update(precision=[]),
    "vocabulary": lambda index, by: index.update(vocabulary=["a", 1]),
    "vocabulary object": lambda index, by: index.update(vocabulary={"a": 1}),
    "vocabulary null": lambda index, by: index.update(vocabulary=None),
    "unknown": lambda index, by: index.update(more=1),
    "no tensors": lambda index, by: index.update(tensors={}),
    "bomb": lambda index, by: index.update(config={"a": "y" * 2**23}),
}


@pytest.mark.parametrize("lie", INDEX_LIES)
def test_a_lying_index_is_refused_without_taking_memory(path, lie):
    change_index(path, INDEX_LIES[lie])
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"model\.safetensors: .*damaged"):
        use(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000 if lie == "bomb" else 2_000_000


def test_ties_count_towards_the_limit_of_weights(path):
    assert sum(entry.size for entry in store.load(path).entries.values()) == 1405
    store.load(path, max_weights=1405)
    with pytest.raises(FormatError, match="1,405 elements, the limit is 1,404"):
        store.load(path, max_weights=1404)


HEADER_LIES = {
    "hole": lambda h: h["_index"].update(shape=[3], data_offsets=[0, 3]),
    "overlap": lambda h: h["data"].update(shape=[4], data_offsets=[0, 4]),
    "outside": lambda h: h["data"].update(data_offsets=[8000, 8008]),
    "backwards": lambda h: h["data"].update(data_offsets=[8, 0]),
    "offsets": lambda h: h["data"].update(data_offsets=[0]),
    "dtype": lambda h: h["data"].update(dtype="F64"),
    "dtype list": lambda h: h["data"].update(dtype=["U8"]),
    "same length, other dtype": lambda h: h["data"].update(dtype="I8"),
    "shape": lambda h: h["data"].update(shape=[2]),
    "another dimension": lambda h: h["data"].update(shape=[1, *h["data"]["shape"]]),
    "not an object": lambda h: h.update(data=[]),
    "unknown entry": lambda h: h.update(z={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
    "empty and huge": lambda h: h.update(z={"dtype": "U8", "shape": [0, 2**60], "data_offsets": [0, 0]}),
    "missing entry": lambda h: h.pop("data"),
    "other name": lambda h: h.update(index=h.pop("_index")),
    "metadata number": lambda h: h["__metadata__"].update(sha256=1),
    "no checksum": lambda h: h["__metadata__"].pop("index_crc32"),
    "checksum": lambda h: h["__metadata__"].update(index_crc32="0"),
    "no SHA-256": lambda h: h["__metadata__"].pop("sha256"),
    "SHA-256": lambda h: h["__metadata__"].update(sha256="0" * 64),
    "version": lambda h: h["__metadata__"].update(version="one"),
    "version 0": lambda h: h["__metadata__"].update(version="0"),
    "version 1": lambda h: h["__metadata__"].update(version="1"),
    "version digits": lambda h: h["__metadata__"].update(version="²"),
    "no version": lambda h: h["__metadata__"].pop("version"),
}


@pytest.mark.parametrize("lie", HEADER_LIES)
def test_a_lying_header_is_refused(path, lie):
    header, body = header_of(path)
    HEADER_LIES[lie](header)
    rewrite(path, header, body)
    with pytest.raises(FormatError, match=r"model\.safetensors: .*damaged"):
        use(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.unlink(), "cannot be read .*No such file"),
        (lambda p: (p.unlink(), p.mkdir()), "not a regular file"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
        (lambda p: p.write_bytes(b""), "0 bytes are no model"),
        (lambda p: p.write_bytes(p.read_bytes()[:300]), "cut short"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "cut short"),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "belong to no entry"),
        (
            lambda p: p.write_bytes(b"\xff\xd8\xff\xe0 a photo, not a model"),
            "not a safetensors file",
        ),
        (lambda p: torch.save({"w": torch.ones(2)}, p), "PyTorch checkpoint"),
        (lambda p: p.write_bytes(pickle.dumps({"w": list(range(9))})), "PyTorch checkpoint"),
        (lambda p: safetensors.numpy.save_file(WEIGHTS, p), "not made by laconic"),
        (lambda p: store.unpack(p, p), "not made by laconic"),
        (lambda p: rewrite(p, b'{"a":' + b"[" * 9999, b""), "nested too deeply"),
        (lambda p: rewrite(p, b'{"\xff":1}', b""), "header: .*decode"),
        (lambda p: rewrite(p, b"{" + b" " * container.MAX_HEADER, b""), "the limit is"),
    ],
)
def test_what_is_no_packed_file_is_called_by_its_name(path, make, message):
    make(path)
    with pytest.raises(FormatError, match=rf"model\.safetensors: .*{message}"):
        use(path)


def test_a_newer_version_asks_for_an_upgrade(path):
    header, body = header_of(path)
    header["__metadata__"]["version"] = "3"
    rewrite(path, header, body)
    with pytest.raises(FormatError, match=r"newer laconic .* upgrade laconic"):
        store.load(path)


def test_metadata_of_other_tools_is_left_alone(path):
    header, body = header_of(path)
    header["__metadata__"]["licence"] = "Apache-2.0"
    rewrite(path, header, body)
    use(path)


STREAM_LIES = {"truncated": lambda data: data[:-1], "longer": lambda data: data + b"x", "empty": lambda data: b""}


@pytest.mark.parametrize("lie", STREAM_LIES)
def test_a_stream_must_end_where_it_says(path, lie):
    with pytest.raises(FormatError, match=r"stream: .*(cut short|belong to no entry)"):
        dict(store.stream(io.BytesIO(STREAM_LIES[lie](path.read_bytes()))))


def test_a_stream_is_checked_as_a_whole_at_its_end(path):
    header, body = header_of(path)
    header["__metadata__"]["sha256"] = "0" * 64
    rewrite(path, header, body)
    source = store.stream(io.BytesIO(path.read_bytes()))
    assert [next(source)[0] for _ in range(5)] == ["w", "t", "b", "n", "m"]
    with pytest.raises(FormatError, match="SHA-256"):
        next(source)


def test_a_stream_of_version_1_or_of_something_else_is_refused(golden):
    with open(golden / "store" / "version1_half.safetensors", "rb") as file, pytest.raises(FormatError, match="stream"):
        dict(store.stream(file))
    with pytest.raises(FormatError, match="not a safetensors file"):
        dict(store.stream(io.BytesIO(b"<html> not found </html>")))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(path, monkeypatch, step):
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(FormatError, match=r"model\.safetensors: cannot be written \(No space left"):
        store.save({"w": np.ones(3, np.float32)}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_leaves_nothing_behind(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.save({"w": np.ones(3, np.float32)}, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("target", ["missing/model", ".", "a\0b", "x" * 300, "model.safetensors/y"])
def test_a_path_that_cannot_be_written(path, target):
    with pytest.raises(FormatError, match=r"cannot be written|not a regular file"):
        store.save({}, path.parent / target)


def test_a_new_file_has_the_permissions_the_user_asked_for(tmp_path):
    old = os.umask(0o027)
    try:
        store.save({}, tmp_path / "a")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", ["1e999", "-1e999", "Infinity", "NaN"])
def test_json_holds_no_number_that_is_not_finite(number):
    with pytest.raises(ValueError, match=f"JSON holds {number}"):
        container.parse_json(f'{{"a": [{number}]}}')
    assert container.parse_json('{"a": [1e99]}') == {"a": [1e99]}
