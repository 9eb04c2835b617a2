"""Hostile files: damaged, lying or foreign, they give FormatError, at little memory."""

import errno
import json
import os
import pickle
import tracemalloc
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
    dict(store.load(path).items())
    store.inspect(path).as_dict()


def header_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def rewrite(path: Path, header: object, body: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def change_index(path: Path, change) -> None:
    header, body = header_of(path)
    rows = json.loads(header["__metadata__"]["tensors"])
    change({row["name"]: row for row in rows}, rows)
    header["__metadata__"]["tensors"] = json.dumps(rows)
    rewrite(path, header, body)


INDEX_LIES = {
    "shape": lambda by, rows: by["w"].update(shape=[20, 36 * 20]),
    "smaller shape": lambda by, rows: by["w"].update(shape=[20, 2]),
    "negative": lambda by, rows: by["w"].update(shape=[-20, -35]),
    "fraction": lambda by, rows: by["w"].update(shape=[20.0, 35]),
    "truth": lambda by, rows: by["b"].update(shape=[2, True]),
    "nine dimensions": lambda by, rows: by["b"].update(shape=[2] + [1] * 8),
    "huge": lambda by, rows: by["w"].update(shape=[2**31, 1]),
    "just allowed": lambda by, rows: by["w"].update(shape=[2**30]),
    "empty and huge": lambda by, rows: by["b"].update(shape=[0, 2**62], nnz=0),
    "fewer": lambda by, rows: by["w"].update(nnz=3),
    "more": lambda by, rows: by["b"].update(nnz=3),
    "one non-zero too few": lambda by, rows: by["b"].update(nnz=1),
    "text": lambda by, rows: by["b"].update(nnz="2"),
    "codec": lambda by, rows: by["b"].update(codec="zip"),
    "codec list": lambda by, rows: by["b"].update(codec=["dense"]),
    "other codec": lambda by, rows: by["b"].update(codec="gaps"),
    "dtype": lambda by, rows: by["b"].update(dtype="F16"),
    "integer": lambda by, rows: by["b"].update(dtype="I64"),
    "dtype list": lambda by, rows: by["b"].update(dtype=[]),
    "missing key": lambda by, rows: by["b"].pop("nnz"),
    "unknown key": lambda by, rows: by["b"].update(extra=1),
    "name": lambda by, rows: by["b"].update(name="other"),
    "name number": lambda by, rows: by["b"].update(name=1),
    "twice": lambda by, rows: rows.append(by["b"]),
    "forgotten": lambda by, rows: rows.remove(by["b"]),
    "not a row": lambda by, rows: rows.append("b"),
    "tied to itself": lambda by, rows: by["t"].update(tied_to="t"),
    "tied to nothing": lambda by, rows: by["t"].update(tied_to="none"),
    "tied to tied": lambda by, rows: rows.append({"name": "t2", "tied_to": "t"}),
    "tied in a circle": lambda by, rows: (
        by["t"].update(tied_to="t2"),
        rows.append({"name": "t2", "tied_to": "t"}),
    ),
    "tied to a number": lambda by, rows: by["t"].update(tied_to=3),
}


@pytest.mark.parametrize("lie", INDEX_LIES)
def test_a_lying_index_is_refused_without_taking_memory(path, lie):
    change_index(path, INDEX_LIES[lie])
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"model\.safetensors: .*damaged"):
        use(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_ties_count_towards_the_limit_of_weights(path):
    assert sum(entry.size for entry in store.load(path).entries.values()) == 1405
    store.load(path, max_weights=1405)
    with pytest.raises(FormatError, match="1,405 elements, the limit is 1,404"):
        store.load(path, max_weights=1404)


HEADER_LIES = {
    "hole": lambda h: h["n"].update(data_offsets=[0, 7]),
    "overlap": lambda h: h["b"].update(data_offsets=[0, 4]),
    "outside": lambda h: h["n"].update(data_offsets=[8000, 8008]),
    "backwards": lambda h: h["n"].update(data_offsets=[8, 0]),
    "offsets": lambda h: h["n"].update(data_offsets=[0]),
    "dtype": lambda h: h["n"].update(dtype="F64"),
    "dtype list": lambda h: h["n"].update(dtype=["I64"]),
    "same length, other dtype": lambda h: h["n"].update(dtype="U64"),
    "values as integers": lambda h: h["w.values"].update(dtype="I16"),
    "gaps as truth": lambda h: h["w.gaps"].update(dtype="BOOL"),
    "shape": lambda h: h["n"].update(shape=[2]),
    "empty and huge": lambda h: h.update(z={"dtype": "U8", "shape": [0, 2**60], "data_offsets": [0, 0]}),
    "not an object": lambda h: h.update(n=[]),
    "unknown entry": lambda h: h.update(z={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
    "missing entry": lambda h: h.pop("w.gaps"),
    "metadata number": lambda h: h["__metadata__"].update(config=1),
    "no index": lambda h: h["__metadata__"].pop("tensors"),
    "index": lambda h: h["__metadata__"].update(tensors="{}"),
    "index text": lambda h: h["__metadata__"].update(tensors="[{"),
    "no config": lambda h: h["__metadata__"].pop("config"),
    "config list": lambda h: h["__metadata__"].update(config="[]"),
    "config NaN": lambda h: h["__metadata__"].update(config='{"a":NaN}'),
    "config twice": lambda h: h["__metadata__"].update(config='{"a":1,"a":2}'),
    "config deep": lambda h: h["__metadata__"].update(config="[" * 100_000),
    "config surrogate": lambda h: h["__metadata__"].update(config='{"a":"\\ud800"}'),
    "config digits": lambda h: h["__metadata__"].update(config='{"a":' + "9" * 9999 + "}"),
    "vocabulary": lambda h: h["__metadata__"].update(vocabulary='["a",1]'),
    "vocabulary object": lambda h: h["__metadata__"].update(vocabulary='{"a":1}'),
    "version": lambda h: h["__metadata__"].update(version="one"),
    "version 0": lambda h: h["__metadata__"].update(version="0"),
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
    header["__metadata__"]["version"] = "2"
    rewrite(path, header, body)
    with pytest.raises(FormatError, match=r"newer laconic .* upgrade laconic"):
        store.load(path)


def test_metadata_of_other_tools_is_left_alone(path):
    header, body = header_of(path)
    header["__metadata__"]["licence"] = "Apache-2.0"
    rewrite(path, header, body)
    use(path)


def refuses(path: Path) -> bool:
    try:
        use(path)
    except FormatError:
        return True
    return False


def test_thousands_of_changed_bytes_load_or_give_format_error_and_nothing_else(path):
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    with open(path, "r+b", buffering=0) as file:
        for place in rng.integers(len(sound), size=4000):
            file.seek(place)
            file.write(rng.bytes(1))
            refused += refuses(path)
            file.seek(place)
            file.write(sound[place : place + 1])
    assert path.read_bytes() == sound
    assert 2000 < refused < 4000  # most bytes matter; some, such as a weight's, cannot be checked


def test_every_truncation_is_refused(path):
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        assert refuses(path)


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
