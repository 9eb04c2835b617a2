"""The native library is found where it is, chosen as asked, and done without where it is not."""

import _ctypes
import ctypes

import numpy as np
import pytest

from laconic.errors import ConfigError
from laconic.native import library as module
from laconic.native.library import library

OK, NOT_A_PLAN = 0, 1


@pytest.fixture
def native():
    """The library; afterwards at the level that it had."""
    found = library()
    if found is None:
        pytest.skip("no native library here")
    level = found.laconic_level()
    yield found
    found.laconic_use(level)


def levels(native: ctypes.CDLL) -> list[bytes]:
    """Instruction sets that this processor has."""
    return [level for level in (b"native", b"x86-64-v2", b"x86-64-v3", b"x86-64-v4") if native.laconic_use(level)]


def test_garbage_is_no_plan(native):
    for size in (0, 1, 4096):
        room = np.frombuffer(np.random.default_rng(size).bytes(size + 64), np.uint8)
        assert native.laconic_check(room.ctypes.data + -room.ctypes.data % 64, size) == NOT_A_PLAN
    assert native.laconic_check(0, 0) == NOT_A_PLAN


def test_errors_have_words(native):
    messages = {native.laconic_message(error) for error in range(8)}
    assert len(messages) == 8
    assert native.laconic_message(-1) == native.laconic_message(8) == b"unknown error"


def test_all_levels_do_the_same(native):
    gates = np.linspace(-90, 90, 10_001, dtype=np.float32)
    counters = np.arange(len(gates), dtype=np.uint64)
    sums, words = [], []
    for level in levels(native):
        assert native.laconic_use(level)
        assert native.laconic_level() == level
        sums.append(np.ones_like(gates))
        words.append(np.empty_like(counters))
        assert native.gating_add_slope(len(gates), gates.ctypes.data, sums[-1].ctypes.data, 0.3) == 1
        native.gating_mix(len(gates), counters.ctypes.data, words[-1].ctypes.data, 2**62)
    assert sums
    for other, word in zip(sums, words, strict=True):
        np.testing.assert_allclose(other, sums[0], rtol=2e-7)
        np.testing.assert_array_equal(word, words[0])


@pytest.mark.parametrize("level", [b"", b"x86-64", b"x86-64-v22", b"X86-64-V2"])
def test_other_levels_are_refused(native, level):
    before = native.laconic_level()
    assert native.laconic_use(level) == 0
    assert native.laconic_level() == before


def test_the_environment_asks_for_a_level(native, monkeypatch):
    lowest = levels(native)[0]
    monkeypatch.setenv("LACONIC_LEVEL", lowest.decode())
    assert library.__wrapped__().laconic_level() == lowest
    monkeypatch.setenv("LACONIC_LEVEL", "z80")
    with pytest.raises(ConfigError, match="LACONIC_LEVEL=z80: not an instruction set of this processor"):
        library.__wrapped__()


def test_the_environment_does_without(monkeypatch):
    monkeypatch.setenv("LACONIC_NATIVE", "0")
    assert library.__wrapped__() is None


@pytest.mark.parametrize("case", ["absent", "foreign", "of another version"])
def test_what_cannot_be_used_is_no_library(case, tmp_path, monkeypatch):
    path = tmp_path / "liblaconic.so"
    if case == "foreign":
        path.write_bytes(b"MZ")
    # one that lacks functions
    monkeypatch.setattr(module, "NAMES", (_ctypes.__file__ if case == "of another version" else str(path),))
    assert library.__wrapped__() is None
