"""Values of weights in the widths of a plan: float32, bfloat16, or whole codes of one byte times a step."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

STORED: dict[str, str] = {"FLOAT32": "<f4", "BFLOAT16": "<u2", "INT8": "i1"}
MOST_CODE = 127

# Of a plan: "exact" keeps every value, "bfloat16" rounds to 8 significant bits those that are no codes.
Width = Literal["exact", "bfloat16"]


def narrow(values: NDArray[np.float32], width: str, step: float) -> tuple[NDArray[Any], str]:
    """Values as they lie in a plan, and in which of WIDTHS that is.

    INT8 where each is a whole multiple, of at most 127, of `step` (0: there is none): the same numbers in one byte.
    Else `width`: FLOAT32, or BFLOAT16, which rounds, to even on a tie.
    """
    codes = _codes(values, step)
    if codes is not None:
        return codes, "INT8"
    if width == "BFLOAT16":
        return _rounded(values), width
    return values.astype(STORED["FLOAT32"], copy=False), "FLOAT32"


def _codes(values: NDArray[np.float32], step: float) -> NDArray[np.int8] | None:
    """Whole multiples of `step`; None where some value is none, or is beyond 127."""
    single = np.float32(step)
    if not 0 < single < np.inf or largest_of(values) > (MOST_CODE + 0.5) * float(single):
        return None
    multiples = values / single
    np.rint(multiples, out=multiples)
    codes = multiples.astype(STORED["INT8"])
    multiples *= single
    return codes if np.array_equal(multiples, values) else None


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded: NDArray[np.uint32] = bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))
    return (rounded >> 16).astype(STORED["BFLOAT16"])


def widen(data: NDArray[np.uint8], width: str, step: float) -> NDArray[np.float32]:
    """float32 values of bytes as they lie in a plan."""
    stored = data.view(STORED[width])
    if width == "INT8":
        return stored.astype(np.float32) * np.float32(step)
    if width == "FLOAT32":
        return stored.astype(np.float32, copy=False)
    return (stored.astype(np.uint32) << 16).view(np.float32)


def largest_of(values: NDArray[np.float32]) -> float:
    """Largest absolute value; 0 where there is none."""
    return float(max(values.max(initial=0), -values.min(initial=0)))
