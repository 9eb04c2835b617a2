"""Codecs: gap coding equals a plain loop over the specification; every shape round-trips."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.store.codecs import CODECS, smallest
from laconic.store.index import Entry
from laconic.store.values import encode

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)


def sparse(shape: tuple[int, ...], density: float, seed: int, values: str = "half") -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = (rng.random(shape) < density) * rng.standard_normal(shape)
    return encode(np.asarray(array, np.float32), values)


def entry_of(array: np.ndarray, codec: str) -> Entry:
    return Entry("w", array.shape, "F32", codec, int(np.count_nonzero(array)))


def gaps_by_hand(flat: list[float]) -> list[int]:
    """The specification, one element after the other."""
    stream, zeros = [], 0
    for value in flat:
        if value != 0:
            stream.append(zeros)
            zeros = 0
        else:
            zeros += 1
            if zeros == 255:
                stream.append(255)
                zeros = 0
    return stream


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("values", ["half", "exact"])
@given(shape=SHAPES, density=st.sampled_from([0.0, 0.05, 0.5, 1.0]), seed=st.integers(0, 2**32))
def test_every_shape_and_density_round_trips(codec, values, shape, density, seed):
    array = sparse(shape, density, seed, values)
    row, entry = CODECS[codec], entry_of(array, codec)
    parts = row.encode(array)
    assert set(parts) == set(row.suffixes)
    assert sum(part.nbytes for part in parts.values()) >= row.least(array, entry.non_zeros)
    decoded = check_and_decode(parts, entry)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, array.astype(np.float32), strict=True)


@given(size=st.integers(0, 3000), density=st.sampled_from([0, 0.001, 0.004, 0.1]), seed=st.integers(0))
def test_gap_stream_is_the_one_the_specification_describes(size, density, seed):
    array = sparse((size,), density, seed)
    assert CODECS["gaps"].encode(array)[".gaps"].tolist() == gaps_by_hand(array.tolist())


@pytest.mark.parametrize(
    ("positions", "size", "stream"),
    [
        ([], 254, []),
        ([], 255, [255]),
        ([0], 1, [0]),
        ([254], 255, [254]),
        ([255], 256, [255, 0]),
        ([255], 511, [255, 0, 255]),
        ([0, 511], 512, [0, 255, 255, 0]),
    ],
)
def test_gap_stream_at_the_edges(positions, size, stream):
    array = np.zeros(size, "<f2")
    array[positions] = 1
    assert CODECS["gaps"].encode(array)[".gaps"].tolist() == stream


def test_the_smaller_codec_wins_and_a_hopeless_one_is_not_tried(monkeypatch):
    dense, thin = sparse((40, 40), 1.0, 0), sparse((40, 40), 0.1, 0)
    assert smallest(thin, np.count_nonzero(thin), list(CODECS))[0] == "gaps"
    assert smallest(dense, np.count_nonzero(dense), list(CODECS))[0] == "dense"
    monkeypatch.setitem(CODECS, "gaps", CODECS["gaps"].__class__(**vars(CODECS["gaps"]) | {"encode": None}))
    assert smallest(dense, np.count_nonzero(dense), list(CODECS))[0] == "dense"


def check_and_decode(parts, entry: Entry) -> np.ndarray:
    CODECS[entry.codec].check(parts, entry)
    return CODECS[entry.codec].decode(parts, entry)


@pytest.mark.parametrize(
    ("gaps", "values", "message"),
    [
        ([5, 3], [1, 1], "add up"),  # non-zero behind the end
        ([0], [1, 1], "non-zeros"),  # stream too short for the count
        ([0, 1], [1], "non-zeros"),
        ([0, 1], [1, 0], "non-zeros"),  # a stored zero
        ([0, 1], [1, np.inf], "finite"),
        ([0, 255], [1, 1], "add up"),
    ],
)
def test_contradicting_parts_are_refused(gaps, values, message):
    parts = {".gaps": np.array(gaps, np.uint8), ".values": np.array(values, "<f2")}
    entry = Entry("w", (2, 4), "F32", "gaps", 2)
    with pytest.raises(ValueError, match=message):
        check_and_decode(parts, entry)
