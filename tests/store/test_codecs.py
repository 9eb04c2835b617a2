"""One tensor: every shape, density and precision round-trips, dense and as compressed sparse rows; cheaply."""

import tracemalloc
from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.store import codecs, values
from laconic.store.index import Entry
from laconic.store.masks import matrix_shape

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
DENSITIES = st.sampled_from([0.0, 0.02, 0.3, 0.97, 1.0])


def sparse(shape: tuple[int, ...], density: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray((rng.random(shape) < density) * rng.standard_normal(shape), np.float32)


def pack(array: np.ndarray, precision: str, step: float | None = None) -> tuple[Entry, np.ndarray]:
    encoded = codecs.encode(array, precision, step)
    entry = Entry("w", array.shape, "F32", encoded.mask, encoded.values, encoded.non_zeros, len(encoded.payload) + 4)
    return entry, np.frombuffer(encoded.payload, np.uint8)


def dense_of(csr: codecs.Csr) -> np.ndarray:
    assert csr.indptr.dtype == csr.indices.dtype == np.int32
    array = np.zeros(matrix_shape(csr.shape), csr.values.dtype)
    for row, (start, end) in enumerate(zip(csr.indptr[:-1], csr.indptr[1:], strict=True)):
        assert (np.diff(csr.indices[start:end]) > 0).all()
        array[row, csr.indices[start:end]] = csr.values[start:end]
    return array.reshape(csr.shape)


@pytest.mark.parametrize("precision", values.VALUES)
@settings(deadline=None)
@given(SHAPES, DENSITIES, st.integers(0, 2**32))
def test_every_shape_and_density_round_trips(precision, shape, density, seed):
    array = sparse(shape, density, seed)
    entry, payload = pack(array, precision)
    decoded = codecs.decode_dense(entry, payload)
    assert (decoded.dtype, decoded.shape) == (np.float32, shape)
    np.testing.assert_array_equal(dense_of(codecs.decode_csr(entry, payload)), decoded)
    assert np.count_nonzero(decoded) == entry.non_zeros
    if precision in ("exact", "trained"):
        np.testing.assert_array_equal(decoded, array)
    elif precision == "half":
        np.testing.assert_array_equal(decoded, array.astype(np.float16 if entry.values == "f16" else np.float32))
    elif entry.values == "step":  # and what was rounded once is kept as it is
        step = codecs.read_step(entry, codecs.Reader(payload)) if entry.non_zeros else 1.0
        assert np.abs(decoded - array).max(initial=0) <= step * 0.5001
        again, same = pack(decoded, precision, step)
        assert (again.mask, same.tobytes()) == (entry.mask, payload.tobytes())


@pytest.mark.parametrize(
    ("array", "codec"),
    [
        (sparse((300, 200), 0.01, 0), "gaps"),
        (sparse((300, 200), 0.5, 0), "bitmap"),
        (sparse((300, 200), 1.0, 0), "dense"),
        (np.where(np.arange(300)[:, None] % 10 == 0, sparse((300, 200), 0.1, 0), 0), "classes"),
    ],
)
def test_the_smallest_mask_codec_wins(array, codec):
    assert pack(np.asarray(array, np.float32), "half")[0].mask == codec


def test_a_small_depthwise_kernel_keeps_float32_under_half():
    for shape, stored in {(32, 1, 3, 3): "f32", (256, 1, 3, 3): "f16", (32, 2, 3, 3): "f16", (32, 9): "f16"}.items():
        assert pack(sparse(shape, 0.7, 0), "half")[0].values == stored


@pytest.mark.parametrize(
    ("array", "stored"),
    [
        (np.array([0.5, -65504.0, 2.0**-24, 0.0]), "f16"),
        (np.array([0.5, 1 + 2.0**-11]), "f32"),
        (np.array([65520.0, 0.5]), "f32"),
        (np.array([2.0**-25, 0.5]), "f32"),
        (np.array([-0.0, 0.5]), "f16"),
    ],
)
def test_what_lies_on_no_step_is_kept_in_the_fewest_bytes(array, stored):
    array = array.astype(np.float32)
    entry, payload = pack(array, "trained")
    assert entry.values == stored
    np.testing.assert_array_equal(codecs.decode_dense(entry, payload), array)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("density", [0.03, 0.5, 1.0])
def test_trained_codes_are_kept_and_cost_their_entropy(bits, density):
    most, step = 2 ** (bits - 1) - 1, np.float32(0.037)
    codes = np.clip(np.rint(sparse((300, 200), density, bits) * most / 2.5), -most, most)
    array = codes.astype(np.float32) * step
    entry, payload = pack(array, "trained", float(step))
    assert entry.values == "step"
    np.testing.assert_array_equal(codecs.decode_dense(entry, payload), array)
    counts = np.unique(codes, return_counts=True)[1]
    bound = (counts * np.log2(counts.sum() / counts)).sum() / 8  # of zeros and codes as one alphabet
    assert len(payload) < 1.1 * bound + 60


def test_a_tensor_too_large_for_32_bit_positions_is_refused():
    huge = np.broadcast_to(np.float32(0), (2**16, 2**15))
    with pytest.raises(ValueError, match="split it"):
        codecs.encode(huge, "exact")


def test_lies_of_the_index_about_a_tensor_are_found():
    entry, payload = pack(sparse((30, 20), 0.1, 0), "half")
    for lie in (
        replace(entry, non_zeros=entry.non_zeros - 1),
        replace(entry, non_zeros=entry.non_zeros + 1),
        replace(entry, non_zeros=0),
        replace(entry, values="f32"),
        replace(entry, values="step"),
        replace(entry, mask="bitmap"),
        replace(entry, mask="dense"),
        replace(entry, mask="classes"),
        replace(entry, shape=(10, 20)),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            codecs.decode_dense(lie, payload)


def test_a_stored_zero_is_refused():
    encoded = codecs.MASKS["gaps"].encode(np.array([1, 2], np.int32), (1, 4))[0]
    payload = encoded + values.encode_planes(np.array([1, 0], np.float32))
    with pytest.raises(ValueError, match="2 non-zeros"):
        codecs.decode_dense(Entry("w", (4,), "F32", "gaps", "f32", 2, 0), np.frombuffer(payload, np.uint8))


@pytest.mark.parametrize("step", [0.0, -1.0, np.inf, np.nan])
def test_a_step_that_is_no_positive_number_is_refused(step):
    entry, payload = pack(np.ones((9, 9), np.float32), "compact")
    broken = np.concatenate([np.array([step], "<f4").view(np.uint8), payload[4:]])
    with pytest.raises(ValueError, match="positive"):
        codecs.decode_dense(entry, broken)


@pytest.mark.parametrize("mask", ["gaps", "bitmap", "classes", "dense"])
def test_a_small_file_that_claims_a_large_tensor_takes_little_memory(mask):
    entry, payload = pack(sparse((300, 200), 0.1, 0), "half")
    lie = replace(entry, mask=mask, shape=(2**17, 2**13), non_zeros=2**29)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"\w"):
        codecs.decode_csr(lie, payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_compressed_sparse_rows_take_memory_for_the_non_zeros_only():
    entry, payload = pack(sparse((2000, 1000), 0.02, 0), "compact")
    tracemalloc.start()
    csr = codecs.decode_csr(entry, payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert csr.indices.nbytes + csr.values.nbytes == 8 * entry.non_zeros
    assert peak < 24 * entry.non_zeros + 2_000_000 < 4 * 2000 * 1000
