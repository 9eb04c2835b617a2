"""Values of weights in the widths of a plan: float32, bfloat16, or whole codes of one byte times a step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

STORED: dict[str, str] = {"FLOAT32": "<f4", "BFLOAT16": "<u2", "INT8": "i1"}
MOST_CODE = 127


def narrow(values: NDArray[np.float32], width: str, step: float) -> NDArray[Any]:
    """Values as they lie in a plan: BFLOAT16 rounds them, to even on a tie, and INT8 takes multiples of `step`."""
    if width == "INT8":
        codes: NDArray[np.float32] = np.rint(values / np.float32(step))
        return codes.astype(STORED[width])
    if width == "FLOAT32":
        return values.astype(STORED[width], copy=False)
    bits = np.ascontiguousarray(values, "<f4").view("<u4")
    rounded: NDArray[np.uint32] = bits + (np.uint32(0x7FFF) + (bits >> 16 & 1))
    return (rounded >> 16).astype(STORED[width])


def widen(data: NDArray[np.uint8], width: str, step: float) -> NDArray[np.float32]:
    """float32 values of bytes as they lie in a plan."""
    stored = data.view(STORED[width])
    if width == "INT8":
        return stored.astype(np.float32) * np.float32(step)
    if width == "FLOAT32":
        return stored.astype(np.float32, copy=False)
    return (stored.astype(np.uint32) << 16).view(np.float32)


def fitting_width(values: NDArray[np.float32], width: str, step: float) -> str:
    """`width`; FLOAT32 instead of INT8 where some value is no code of at most 127 times the step."""
    if width != "INT8":
        return width
    if not 0 < step < np.inf:
        return "FLOAT32"
    codes = np.rint(values / np.float32(step))
    exact = np.abs(codes) <= MOST_CODE
    exact &= codes * np.float32(step) == values
    return "INT8" if exact.all() else "FLOAT32"
