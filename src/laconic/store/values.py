"""What a weight's value becomes in the file: the one place where precision is given up.

Knows numbers only; positions, names and bytes on disk are the business of others.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VALUES: dict[str, np.dtype[Any]] = {
    "half": np.dtype("<f2"),  # relative error at most 2**-11; absolute at most 2**-25 below 2**-14
    "exact": np.dtype("<f4"),
}
SOURCES = ("float16", "float32")  # float64 would lose digits without a word even under "exact"


def encode(array: Array, values: str) -> Array:
    """A copy of `array` (float16 or float32, any shape) as `VALUES[values]`, in row-major order.

    -0.0 becomes 0.0, so that zero has one bit pattern. Raises ValueError for values that are not
    finite or that the target cannot hold.
    """
    target = VALUES[values]
    largest, limit = _largest(array), float(np.finfo(target).max)
    if not math.isfinite(largest):
        raise ValueError("holds values that are not finite; the training has diverged")
    if largest > limit:
        raise ValueError(f"holds {largest:g}, float16 ends at {limit:g}; use values='exact'")
    stored = array.astype(target, order="C")
    bits = stored.view(f"<u{target.itemsize}")
    np.copyto(bits, 0, where=bits == 1 << (8 * target.itemsize - 1))
    return stored


def decode(stored: Array) -> Array:
    """Stored float values as a new float32 array. Raises ValueError where one is not finite."""
    array = stored.astype(np.float32)
    if not math.isfinite(_largest(array)):
        raise ValueError("values are not finite")
    return array


def _largest(array: Array) -> float:
    """Largest absolute value, without a temporary array; not finite where any value is not."""
    if not array.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.maximum(-array.min(), array.max()))  # minimum and maximum pass NaN on
