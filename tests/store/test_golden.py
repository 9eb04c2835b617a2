"""Committed files pin the format: they decode to the same bits for ever, and the same input gives the same bytes."""

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from laconic import store

CLASSIC_ZLIB = "ng" not in zlib.ZLIB_RUNTIME_VERSION  # another zlib may compress to other, equally valid bytes

DIGESTS = {
    "exact": "be6d440ed564b453",
    "half": "082f267dbbb93226",
    "fine": "2fdb58dd604b8662",
    "compact": "58aab04c00063887",
    "trained": "986774235292fe3b",
}


def weights() -> dict[str, np.ndarray]:
    """Every codec of masks and values, from whole-number arithmetic alone."""

    def noise(count: int, seed: int) -> np.ndarray:
        mixed = (np.arange(count, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(31)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        return ((mixed >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32) / np.float32(2**23)

    def sparse(shape: tuple[int, ...], kept: float, seed: int) -> np.ndarray:
        count = int(np.prod(shape))
        values, chance = noise(count, seed), noise(count, seed + 10**6)
        return np.where(np.abs(chance) < kept, values, np.float32(0)).reshape(shape)

    rows = np.repeat([0.4, 0.04, 0.004, 0], 30)[:, None]
    columns = np.tile([1, 0.1, 0.5], 30)[None, :]
    chance = np.abs(noise(120 * 90, 7)).reshape(120, 90)
    embed = sparse((60, 50), 0.02, 1)
    return {
        "embed": embed,
        "concentrated": np.where(chance < rows * columns, noise(120 * 90, 8).reshape(120, 90), np.float32(0)),
        "half full": sparse((40, 7, 3, 3), 0.4, 2),
        "full": noise(600, 3).reshape(20, 30),
        "bias": noise(200, 4) / 8,
        "scalar": np.float32(0.75).reshape(()),
        "all zero": np.zeros((9, 9), np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "steps": np.array(7),
        "flags": np.arange(40) % 3 == 0,
        "out": embed,
    }


STEPS = {"embed": 0.3, "concentrated": 0.25, "half full": 0.1, "full": 0.02, "all zero": 1.0}  # of what was trained


def save(path: Path, values: str) -> bytes:
    about = {"config": {"width": 8, "name": "é"}, "vocabulary": ["a", "犬"], "provenance": {"made": "2026-11-20"}}
    given, steps = weights(), STEPS if values == "trained" else None
    for name, step in (steps or {}).items():
        single = np.float32(step)
        given[name] = np.rint(given[name] / single).clip(-7, 7) * single
    given["out"] = given["embed"]
    store.save(given, path, values=values, steps=steps, **about)
    return path.read_bytes()


def digest(packed: store.Packed) -> str:
    found = hashlib.sha256()
    for name, array in packed.items():
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("values", store.VALUES)
def test_committed_files_decode_to_the_same_bits(golden, values):
    packed = store.load(golden / "store" / f"{values}.safetensors")
    assert digest(packed) == DIGESTS[values]
    assert packed.config == {"width": 8, "name": "é"}
    assert (packed.vocabulary, packed.provenance) == (["a", "犬"], {"made": "2026-11-20"})
    masks = {entry.mask for entry in packed.entries.values()}
    assert masks == {"dense", "gaps", "classes"} | ({"bitmap"} if values not in ("compact", "trained") else set())


@pytest.mark.parametrize("values", ["half", "exact"])
def test_files_of_version_1_are_still_read(golden, tmp_path, values):
    packed = store.load(golden / "store" / f"version1_{values}.safetensors")
    assert (packed.version, packed.precision, packed.ties) == (1, values, {"out": "embed"})
    assert digest(packed) == DIGESTS[values]
    assert (packed.config, packed.vocabulary) == ({"width": 8, "name": "é"}, ["a", "犬"])
    store.save(packed, tmp_path / "x", values=values)
    assert digest(store.load(tmp_path / "x")) == DIGESTS[values]


@pytest.mark.skipif(not CLASSIC_ZLIB, reason="zlib-ng compresses to other bytes")
@pytest.mark.parametrize("values", store.VALUES)
def test_the_same_input_gives_the_committed_bytes(golden, tmp_path, values):
    assert save(tmp_path / "x", values) == (golden / "store" / f"{values}.safetensors").read_bytes()
