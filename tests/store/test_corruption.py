"""Thousands of damaged files: each is refused, or gives exactly what the sound one gives; nothing else ever happens."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from laconic import store
from laconic.errors import FormatError
from laconic.store import codecs
from laconic.store.index import Entry


def sparse(shape: tuple[int, ...], density: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chance = density * np.exp(rng.normal(0, 1, (shape[0], *[1] * (len(shape) - 1))))
    return np.asarray((rng.random(shape) < chance) * rng.standard_normal(shape), np.float32)


WEIGHTS = {
    "gaps": sparse((20, 35), 0.03, 0),
    "classes": sparse((60, 50), 0.08, 1) * (np.arange(60) % 4 == 0)[:, None],
    "half full": sparse((6, 5, 3, 3), 0.5, 2),
    "bias": np.linspace(-1, 1, 30, dtype=np.float32),
    "count": np.array([3], np.int64),
    "flags": np.array([True, False, True]),
}


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = WEIGHTS | {"tied": WEIGHTS["gaps"]}
    store.save(tensors, path, values="compact", config={"a": 1}, vocabulary=["x", "y"])
    return path


def contents(path: Path) -> list[object]:
    packed = store.load(path)
    return [packed.config, packed.vocabulary, *((name, array.tobytes()) for name, array in packed.items())]


def refused(path: Path, sound: list[object]) -> bool:
    """Whether the file gives FormatError; if not, it must give what the sound one gives."""
    try:
        assert contents(path) == sound
    except FormatError:
        return True
    return False


def mutate(data: bytearray, rng: np.random.Generator) -> None:
    """Flips a bit, changes or repeats some bytes, or takes some away."""
    kind, at = rng.integers(5), int(rng.integers(len(data)))
    length = int(rng.integers(1, 9))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[at : at + length] = rng.bytes(length)
    elif kind == 2:
        data[at : at + length] = data[max(0, at - length) : at]
    elif kind == 3:
        del data[at : at + length]
    else:
        data[at : at + length] = bytes([0, 255][int(rng.integers(2))] for _ in range(length))


def change_files(path: Path, count: int) -> int:
    sound, before = path.read_bytes(), contents(path)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(count):
        data = bytearray(sound)
        mutate(data, rng)
        path.write_bytes(data)
        found += refused(path, before)
    return found


def test_changed_files_are_refused_or_equal(path):
    assert change_files(path, 600) > 500


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_thousand_changed_files_are_refused_or_equal(path):
    assert change_files(path, 20_000) > 18_000


def test_every_truncation_is_refused(path):
    before = contents(path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        assert refused(path, before)


def test_changed_streams_are_refused_or_equal(path):
    sound = path.read_bytes()
    expected = [(name, array.tobytes()) for name, array in store.stream(io.BytesIO(sound))]
    rng = np.random.default_rng(1)
    for _ in range(500):
        data = bytearray(sound)
        mutate(data, rng)
        try:
            assert [(name, array.tobytes()) for name, array in store.stream(io.BytesIO(data))] == expected
        except FormatError:
            continue


def change_payloads(count: int) -> tuple[int, int]:
    """As a forger would, who mends the checksums: decoding gives an array of the shape, or ValueError."""
    rng = np.random.default_rng(2)
    sound: list[tuple[Entry, bytes]] = []
    for name, array in WEIGHTS.items():
        for precision in store.VALUES:
            encoded = codecs.encode(array, precision)
            dtype = {"i": "I64", "b": "BOOL"}.get(array.dtype.kind, "F32")
            entry = Entry(name, array.shape, dtype, encoded.mask, encoded.values, encoded.non_zeros, 0)
            sound.append((entry, encoded.payload))
    read = failed = 0
    for turn in range(count):
        entry, payload = sound[turn % len(sound)]
        data = bytearray(payload)
        mutate(data, rng)
        decode = (codecs.decode_dense, codecs.decode_csr)[turn % 2]
        try:
            decoded = decode(entry, np.frombuffer(bytes(data), np.uint8))
        except ValueError:
            failed += 1
            continue
        read += 1
        assert decoded.shape == entry.shape
        found = decoded if isinstance(decoded, np.ndarray) else decoded.values
        assert found.dtype == entry.numpy_dtype
        assert np.count_nonzero(found) == entry.non_zeros
        assert np.isfinite(found).all()
        if not isinstance(decoded, np.ndarray) and len(found):
            assert decoded.indptr[-1] == entry.non_zeros
            assert 0 <= decoded.indices.min() <= decoded.indices.max() < entry.size
    return read, failed


def test_forged_tensors_decode_to_their_shape_or_are_refused():
    read, failed = change_payloads(4000)
    assert read > 400
    assert failed > 1000


@pytest.mark.slow
def test_a_hundred_thousand_forged_tensors_decode_to_their_shape_or_are_refused():
    read, failed = change_payloads(100_000)
    assert read > 10_000
    assert failed > 25_000
