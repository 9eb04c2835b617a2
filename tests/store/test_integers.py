"""Bits and sequences: every code is what the specification says, and gives back what it was given."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.store import bits, integers
from laconic.store.bits import Reader

NUMBERS = st.integers(0, 31).flatmap(
    lambda width: hnp.arrays(np.uint32, st.integers(0, 70), elements=st.integers(0, 2 ** (width + 1) - 1))
)


def reader(data: bytes) -> Reader:
    return Reader(np.frombuffer(data, np.uint8))


def whole(source: Reader, numbers: np.ndarray) -> list[int]:
    source.finish()
    return numbers.tolist()


def fixed_by_hand(numbers: list[int], width: int) -> bytes:
    """The specification, one bit after the other."""
    planes = b"".join(bytes(number >> 8 * plane & 255 for number in numbers) for plane in range(width // 8))
    rest = "".join(f"{(number >> width - width % 8) % (1 << width % 8):0{width % 8}b}" for number in numbers)
    rest = rest if width % 8 else ""
    rest += "0" * (-len(rest) % 8)
    return planes + bytes(int(rest[i : i + 8], 2) for i in range(0, len(rest), 8))


@settings(deadline=None)
@given(NUMBERS, st.integers(0, 32))
def test_fixed_width_is_what_the_specification_describes(numbers, width):
    numbers &= np.uint32(2**width - 1)
    data = bits.pack_fixed(numbers, width)
    assert data == fixed_by_hand(numbers.tolist(), width)
    assert len(data) == bits.fixed_size(len(numbers), width)
    source = reader(data)
    assert whole(source, bits.unpack_fixed(source, len(numbers), width)) == numbers.tolist()


@settings(deadline=None)
@given(hnp.arrays(np.uint32, st.integers(0, 200), elements=st.integers(0, 40)))
def test_unary_is_zeros_and_a_one(numbers):
    data = bits.pack_unary(numbers)
    text = "".join("0" * number + "1" for number in numbers.tolist())
    assert "".join(f"{byte:08b}" for byte in data) == text + "0" * (-len(text) % 8)
    source = reader(data)
    assert whole(source, bits.gaps_between(bits.unpack_unary(source, len(numbers), len(data)))) == numbers.tolist()


def test_unary_is_read_piece_by_piece(monkeypatch):
    monkeypatch.setattr(bits, "CHUNK", 3)
    numbers = np.arange(60, dtype=np.uint32)
    data = bits.pack_unary(numbers)
    assert bits.gaps_between(bits.unpack_unary(reader(data), 60, len(data))).tolist() == list(range(60))


@settings(deadline=None)
@given(NUMBERS)
def test_every_sequence_comes_back_whichever_code_is_taken(numbers):
    rice = integers.rice_parameter(numbers)[0]
    coded = [integers.encode(numbers), integers._huffman(numbers, 3)]
    if int(numbers.sum(dtype=np.uint64)) >> rice < 10**6:
        coded.append(bytes([integers.RICE + rice]) + integers.encode_rice(numbers, rice))
    for data in coded:
        source = reader(data)
        assert whole(source, integers.decode(source, len(numbers))) == numbers.tolist()
    assert len(coded[0]) == min(map(len, coded)) or len(coded[0]) <= 1 + 5 * len(numbers)


@pytest.mark.parametrize("exact", integers.EXACT)
def test_symbols_stand_for_ranges_without_gaps(exact):
    firsts, widths = integers._ranges(exact)
    ends = firsts.astype(np.int64) + (1 << widths.astype(np.int64))
    assert len(firsts) <= 256
    assert (firsts[1:] == ends[:-1]).all()
    assert (firsts[: 2 << exact] == np.arange(2 << exact)).all()
    assert ends[-1] >= 2**32 or len(firsts) + (1 << exact) > 256


@pytest.mark.parametrize(
    ("numbers", "code", "bits_each"),  # the entropy; Huffman takes a bit at least
    [
        (np.random.default_rng(0).integers(0, 2**20, 5000), integers.FIXED, 20),
        (np.random.default_rng(0).geometric(1 / 50, 5000) - 1, integers.RICE, 7.07),
        (np.random.default_rng(0).choice([0, 1, 200], 5000, p=[0.9, 0.05, 0.05]), integers.HUFFMAN, 1.1),
    ],
)
def test_the_code_that_suits_is_taken_and_is_close_to_the_entropy(numbers, code, bits_each):
    data = integers.encode(numbers.astype(np.uint32))
    assert data[0] & 192 == code
    assert 8 * len(data) < 1.01 * bits_each * 5000 + 160


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"", 1, "too early"),
        (bytes([33]), 0, "unknown"),
        (bytes([0]), 5, "unknown"),
        (bytes([96]), 0, "unknown"),
        (bytes([130]), 0, "unknown"),
        (bytes([200]), 0, "unknown"),
        (bytes([8, 1, 2]), 3, "too early"),
        (bytes([64, 1, 0b10100000]), 3, "not as many"),
        (bytes([64, 2, 0b10100000, 0]), 2, "not as many"),  # a byte of nothing
        (bytes([64, 1]), 1, "too early"),
        (bytes([64, 255, 255, 255, 255, 255, 1]), 1, "too long"),
        (bytes([95, 2, 0, 0b10000000]) + bytes(4), 1, "too large"),
        (bytes([131, 1, 7]), 1, "damaged"),
        (bytes([131, 1, 3]), 1, "another length"),
    ],
)
def test_damaged_sequences_are_refused(data, count, message):
    with pytest.raises(ValueError, match=message):
        integers.decode(reader(data), count)


def test_a_bomb_is_inflated_no_further_than_the_count():
    bomb = integers.deflate(bytes(60_000))
    with pytest.raises(ValueError, match="another length"):
        integers.inflate(np.frombuffer(bomb, np.uint8), 100)
    with pytest.raises(ValueError, match="another length"):
        integers.inflate(np.frombuffer(integers.deflate(bytes(50)) + b"x", np.uint8), 50)


def test_a_symbol_beyond_the_last_range_is_refused():
    stream = integers.deflate(bytes([255]))
    with pytest.raises(ValueError, match="symbol"):
        integers.decode(reader(bytes([131, len(stream)]) + stream), 1)
