"""Values: the error bound of float16, exactness of float32, and what cannot be stored."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.store.values import decode, encode

FINITE = st.floats(-65504, 65504, width=32)
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=FINITE)


@given(ARRAYS)
def test_half_keeps_the_documented_error_bound(array):
    error = np.abs(decode(encode(array, "half")).astype(np.float64) - array)
    assert np.all(error <= np.maximum(np.abs(array) * 2.0**-11, 2.0**-25))


@given(hnp.arrays(np.float32, 7, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_exact_keeps_every_bit_but_the_sign_of_zero(array):
    kept = decode(encode(array, "exact"))
    np.testing.assert_array_equal(kept.view(np.uint32), (array + np.float32(0)).view(np.uint32))


@pytest.mark.parametrize("values", ["half", "exact"])
def test_negative_zero_becomes_zero_even_when_rounding_made_it(values):
    stored = encode(np.array([-0.0, -1e-9 if values == "half" else 0], np.float32), values)
    assert not stored.view(f"u{stored.itemsize}").any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_both_ways(bad):
    array = np.array([1, bad, 2], np.float32)
    with pytest.raises(ValueError, match="not finite"):
        encode(array, "exact")
    with pytest.raises(ValueError, match="not finite"):
        decode(array)


def test_half_refuses_what_float16_cannot_hold_and_names_the_way_out():
    encode(np.array([65504, -65504], np.float32), "half")
    with pytest.raises(ValueError, match=r"-?65505.*values='exact'"):
        encode(np.array([-65505], np.float32), "half")


def test_the_whole_range_of_float32_decodes():
    edge = np.array([np.finfo(np.float32).max, np.finfo(np.float32).min], np.float32)
    np.testing.assert_array_equal(decode(encode(edge, "exact")), edge)
