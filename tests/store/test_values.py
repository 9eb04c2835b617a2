"""Values: error bounds of each precision, exactness, and what cannot be stored."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.store import values
from laconic.store.bits import Reader

ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 40)


def reader(data: bytes) -> Reader:
    return Reader(np.frombuffer(data, np.uint8))


@settings(deadline=None)
@given(hnp.arrays(np.float32, COUNTS, elements=st.floats(-65504, 65504, width=32)))
def test_half_keeps_the_documented_error_bound(array):
    error = np.abs(values.as_float(array, "f16").astype(np.float64) - array)
    assert np.all(error <= np.maximum(np.abs(array) * 2.0**-11, 2.0**-25))


@pytest.mark.parametrize("stored", values.FLOATS)
@settings(deadline=None)
@given(hnp.arrays(np.float32, COUNTS, elements=ANY))
def test_planes_keep_every_bit(stored, array):
    with np.errstate(over="ignore"):
        kept = array.astype(values.FLOATS[stored])
    kept = kept[np.isfinite(kept)]
    source = reader(values.encode_planes(kept))
    decoded = values.decode_planes(source, len(kept), kept.dtype)
    source.finish()
    assert decoded.tobytes() == kept.tobytes()


@settings(deadline=None)
@given(hnp.arrays(np.int64, COUNTS))
def test_whole_numbers_come_back(array):
    source = reader(values.encode_planes(array))
    np.testing.assert_array_equal(values.decode_planes(source, len(array), array.dtype), array)


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 60), elements=ANY), st.sampled_from([0.2, 0.015, 0.01]))
def test_plain_rounding_stays_within_half_a_step_and_its_grid_is_recognised(array, factor):
    array = values.as_float(array, "f32")
    step = values.plain_step(array, factor)
    if step is None:
        largest = np.abs(array).max()
        assert largest == 0 or largest > 1e37 or factor * largest < 1e-36
        return
    codes = values.round_to_codes(array, step)
    for zeros in (True, False):
        kept = codes if zeros else codes[codes != 0]
        source = reader(values.encode_codes(kept, zeros))
        rounded = values.decode_codes(source, len(kept), step, zeros)
        source.finish()
        assert rounded.tolist() == (kept.astype(np.float32) * np.float32(step)).tolist()
        assert values.codes_on_grid(rounded, step).tolist() == kept.tolist()
    exact = codes.astype(np.float64) * step
    assert np.all(np.abs(exact - array) <= step / 2 * (1 + 1e-6) + np.abs(array) * 2.0**-23)


def test_the_step_is_a_share_of_the_root_mean_square_of_the_non_zeros_in_8_bits():
    array = np.array([0, 3, 0, -4, 0], np.float32)
    step = values.plain_step(array, 0.2)
    assert step == pytest.approx(0.2 * np.sqrt(12.5), rel=2**-8)
    mantissa = np.frexp(step)[0] * 256
    assert mantissa == int(mantissa)
    assert values.plain_step(np.zeros(3, np.float32), 0.2) is None
    assert values.plain_step(np.array([1e-44], np.float32), 0.2) is None
    assert values.plain_step(np.array([3.4e38], np.float32), 0.2) is None


@pytest.mark.parametrize(
    ("array", "step", "message"),
    [
        ([0.5, 0.75], 0.5, "no multiples"),
        ([1.0], 2.0**-24, "beyond"),
        ([1.0], 0.0, "positive"),
        ([1.0], -1.0, "positive"),
        ([1.0], float("nan"), "positive"),
        ([1.0], 1e300, "positive"),
    ],
)
def test_values_off_their_grid_are_refused(array, step, message):
    with pytest.raises(ValueError, match=message), np.errstate(over="ignore"):
        values.codes_on_grid(np.array(array, np.float32), step)


@pytest.mark.parametrize("stored", values.FLOATS)
def test_negative_zero_becomes_zero_even_when_rounding_made_it(stored):
    array = np.array([-0.0, -1e-9 if stored == "f16" else 0], np.float32)
    assert not values.as_float(array, stored).view(np.uint8).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_both_ways(bad):
    array = np.array([1, bad, 2], np.float32)
    with pytest.raises(ValueError, match="not finite"):
        values.as_float(array, "f32")
    with pytest.raises(ValueError, match="not finite"):
        values.decode_planes(reader(values.encode_planes(array)), 3, array.dtype)


def test_half_refuses_what_float16_cannot_hold_and_names_the_way_out():
    values.as_float(np.array([65504, -65504], np.float32), "f16")
    with pytest.raises(ValueError, match=r"65505.*values='exact'"):
        values.as_float(np.array([-65505], np.float32), "f16")


def test_codes_and_products_that_are_too_large_are_refused():
    for codes in (np.array([2**24 + 1], np.int32), np.array([2**28], np.int32)):
        with pytest.raises(ValueError, match="too many steps"):
            values.decode_codes(reader(values.encode_codes(codes, False)), 1, 1.0, False)
    with pytest.raises(ValueError, match="not finite"):
        values.decode_codes(reader(values.encode_codes(np.array([100], np.int32), False)), 1, 3e37, False)


def test_truth_values_are_0_or_1():
    with pytest.raises(ValueError, match="too large"):
        values.decode_planes(reader(values.encode_planes(np.array([0, 2], np.uint8))), 2, np.dtype("?"))
