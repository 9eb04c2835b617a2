"""What a weight's value becomes in the file: the one place where precision is given up.

Three ways to lie in the file: `f32` and `f16` as byte planes, `step` as whole multiples of one float32 per tensor.
Only `exact` and `trained` give up nothing.
Knows numbers only; positions, names and bytes on disk are the business of others. What cannot be stored, or was
stored wrongly, is a ValueError.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.store import integers
from laconic.store.bits import Numbers, Reader, varint

Array = NDArray[Any]
Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

SOURCES = ("float16", "float32")  # float64 would lose digits without a word even under "exact"
FEW_CODES, MANY_VALUES = 1 << 10, 1 << 12  # so few codes are looked up in a table where so many values have them
LARGEST_CODE = 2**24  # float32 holds every whole number up to it


@dataclass(frozen=True)
class Precision:
    """A row of VALUES: `stored` is what floats lie in the file as; for "step", the steps of plain rounding.

    Steps are given as multiples of the root mean square of a tensor's non-zeros, for matrices and kernels, and for
    vectors (biases, gains), which are few and touch every output. Without any, nothing is rounded: tensors that lie on
    the grid of a step are stored by that, others as the shortest float that holds their values.

    `error` is what a quantiser that fits steps to data may make of a model's outputs, a share of their size; above 0
    where there are steps. `pixel_error` is that of a model that reads pixels, where it is another.
    """

    stored: str
    matrix_step: float = 0.0
    vector_step: float = 0.0
    error: float = 0.0
    pixel_error: float | None = None

    @property
    def takes_steps(self) -> bool:
        """Whether steps can be given for it."""
        return self.stored == "step"

    @property
    def loses_nothing(self) -> bool:
        """Whether what is stored is what was there, bit by bit but for the sign of zero."""
        return self.stored == "f32" or (self.takes_steps and not self.matrix_step)

    @property
    def as_trained(self) -> bool:
        """Whether it is for weights that learned on the grids of steps, which come with them."""
        return self.takes_steps and self.loses_nothing


VALUES: dict[str, Precision] = {
    "exact": Precision("f32"),
    "half": Precision("f16"),  # relative error at most 2**-11; absolute at most 2**-25 below 2**-14
    "fine": Precision("step", 0.015, 0.01, error=0.009),
    "compact": Precision("step", 0.2, 0.05, error=0.06, pixel_error=0.02),  # chosen on Flickr8k val, docs/LOG.md
    "trained": Precision("step"),
}
FLOATS: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2")}


# Rounding


def as_float(array: Array, stored: str) -> Array:
    """A copy of `array` (float16 or float32, any shape) in the dtype of `stored`, flat, in row-major order.

    -0.0 becomes 0.0, so that zero has one bit pattern and pruned weights have it. Raises ValueError for values that
    are not finite or that the target cannot hold.
    """
    target = FLOATS[stored]
    largest, limit = largest_of(array), float(np.finfo(target).max)
    if not math.isfinite(largest):
        raise ValueError(
            "holds values that are not finite: of weights whose training has diverged, or of a constant such as a mask "
            "of -inf, which need not be stored (register_buffer(..., persistent=False))"
        )
    if largest > limit:
        raise ValueError(f"holds {largest:g}, float16 ends at {limit:g}; use values='exact'")
    flat = array.astype(target, order="C").reshape(-1)
    bits = flat.view(f"<u{target.itemsize}")
    np.copyto(bits, 0, where=bits == 1 << (8 * target.itemsize - 1))
    return flat


def shortest_float(exact: Floats) -> str:
    """The row of FLOATS with the fewest bytes that holds these values as they are."""
    with np.errstate(over="ignore", under="ignore"):
        return "f16" if np.array_equal(exact.astype(FLOATS["f16"]).astype(np.float32), exact) else "f32"


def plain_step(values: Floats, factor: float) -> float | None:
    """`factor` times the root mean square of the non-zeros, to 8 significant bits; None where no float32 step serves.

    So few bits that the order in which a machine adds up the squares does not show.
    """
    non_zeros = values[values != 0].astype(np.float64)
    if not len(non_zeros):
        return None
    mantissa, exponent = math.frexp(factor * math.sqrt(np.dot(non_zeros, non_zeros) / len(non_zeros)))
    step = math.ldexp(round(mantissa * 256), exponent - 8)
    most = largest_of(non_zeros) + step
    fits = float(np.finfo(np.float32).tiny) <= step and most <= float(np.finfo(np.float32).max)
    return step if fits and most / step < LARGEST_CODE else None


def round_to_codes(values: Floats, step: float) -> Codes:
    """The nearest multiples of `step`, halves to even."""
    return np.rint(values.astype(np.float64) / step).astype(np.int32)


def codes_on_grid(values: Floats, step: float) -> Codes:
    """The codes of values that are float32(code) * float32(step) already. ValueError where one is not."""
    single = np.float32(step)
    if not (math.isfinite(single) and single > 0):
        raise ValueError(f"has the step {step!r}, which is no positive float32")
    if largest_of(values) / float(single) >= LARGEST_CODE:
        raise ValueError(f"has values beyond {LARGEST_CODE:,} times its step {step:g}; give a larger step")
    codes = round_to_codes(values, float(single))
    if not np.array_equal(codes.astype(np.float32) * single, values):
        raise ValueError(f"has values that are no multiples of its step {step:g}; round them first")
    return codes


def largest_of(array: Array) -> float:
    """Largest absolute value, without a temporary array; not finite where any value is not."""
    if not array.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.maximum(-array.min(), array.max()))  # minimum and maximum pass NaN on


# Byte planes of floats and whole numbers


def planes(array: Array) -> list[NDArray[np.uint8]]:
    """Bytes of each number, the highest first. Floats are turned left by one bit: the exponent fills a byte."""
    bits = 8 * array.itemsize
    numbers = array.view(f"<u{array.itemsize}")
    if array.dtype.kind == "f":
        numbers = (numbers << 1) | (numbers >> (bits - 1))
    return [((numbers >> shift) & 255).astype(np.uint8) for shift in range(bits - 8, -8, -8)]


def encode_planes(array: Array) -> bytes:
    return b"".join(integers.encode(plane.astype(np.uint32)) for plane in planes(array))


def decode_planes(source: Reader, count: int, dtype: np.dtype[Any]) -> Array:
    """`count` numbers of the little-endian `dtype`. ValueError for floats that are not finite and odd truth values."""
    bits = 8 * dtype.itemsize
    numbers: Array = np.zeros(0, f"<u{dtype.itemsize}")
    for place in range(dtype.itemsize):
        plane = integers.decode(source, count)
        if int(plane.max(initial=0)) > (1 if dtype.kind == "b" else 255):
            raise ValueError("a byte of its values is too large")
        if place == 0:  # memory is taken once the first plane has turned out to be as long
            numbers = plane.astype(numbers.dtype)
        else:
            numbers <<= 8
            numbers |= plane.astype(numbers.dtype)
    if dtype.kind == "f":
        exponent = np.finfo(dtype).nexp  # the upper bits, as floats are turned here: all of them 1 where not finite
        if int(numbers.max(initial=0)) >> (bits - exponent) == (1 << exponent) - 1:
            raise ValueError("values are not finite")
        numbers = (numbers >> 1) | (numbers << (bits - 1))
    return numbers.view(dtype)


# Multiples of a step. Signs alternate: 0, 1, -1, 2, -2 become 0, 1, 2, 3, 4.


def encode_codes(codes: Codes, zeros: bool) -> bytes:
    """Without `zeros`, none of them is 0; with, they are taken from their median, which is written first."""
    if not zeros:
        return integers.encode(_alternate(codes) - np.uint32(1))
    middle = np.median(codes).astype(np.int32) if len(codes) else np.int32(0)
    return varint(int(_alternate(middle))) + integers.encode(_alternate(codes - middle))


def decode_codes(source: Reader, count: int, step: float, zeros: bool) -> Floats:
    """Codes times `step`, float32. ValueError where a code or a product is too large."""
    middle = source.varint() if zeros else 0
    numbers = integers.decode(source, count)
    most = int(numbers.max(initial=0))
    if max(middle, most) > 4 * LARGEST_CODE:
        raise ValueError("a value is too many steps")
    if most >= FEW_CODES or count < MANY_VALUES:
        return _values_of(numbers, middle, step, zeros)
    used = np.flatnonzero(np.bincount(numbers)).astype(np.uint32)
    table = np.zeros(most + 1, np.float32)  # each value is worked out once
    table[used] = _values_of(used.copy(), middle, step, zeros)
    found: Floats = table[numbers]
    return found


def _values_of(numbers: Numbers, middle: int, step: float, zeros: bool) -> Floats:
    """Overwrites `numbers`."""
    if not zeros:
        numbers += np.uint32(1)
    negative = (numbers & np.uint32(1)) == 0
    numbers += np.uint32(1)
    numbers >>= np.uint32(1)
    codes: Codes = numbers.view(np.int32)
    np.negative(codes, out=codes, where=negative)
    if middle:
        codes += np.int32((middle + 1) // 2 if middle % 2 else -(middle // 2))
    if largest_of(codes) > LARGEST_CODE:
        raise ValueError("a value is too many steps")
    with np.errstate(over="ignore"):
        values = codes.astype(np.float32)
        values *= np.float32(step)
    if not math.isfinite(largest_of(values)):
        raise ValueError("values are not finite")
    return values


def _alternate(codes: Codes | np.int32) -> Numbers:
    return np.asarray(np.where(codes > 0, 2 * codes - 1, -2 * codes), np.uint32)
