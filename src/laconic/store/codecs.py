"""How one tensor lies in the file: each codec turns an array into named parts and back.

A codec sees stored values (see values.py) and the tensor's index entry; it does not know files,
and it reports a contradiction as ValueError, to which the caller adds file and tensor. A new codec
is a row of CODECS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from laconic.store.index import Entry
from laconic.store.values import VALUES, Array
from laconic.store.values import decode as decode_values

Parts = Mapping[str, Array]  # suffix of the entry's name in the file -> array
SKIP = 255  # gap byte: 255 positions without a non-zero


@dataclass(frozen=True)
class Codec:
    """One way to store a tensor. `check` reads no values, `decode` relies on it having passed."""

    suffixes: tuple[str, ...]
    least: Callable[[Array, int], int]  # (array, non-zeros) -> bytes that encode cannot go below
    encode: Callable[[Array], Parts]
    check: Callable[[Parts, Entry], None]
    decode: Callable[[Parts, Entry], Array]


def smallest(array: Array, non_zeros: int, names: list[str]) -> tuple[str, Parts]:
    """Of the codecs `names`, the one that stores `array` in the fewest bytes, and its parts.

    The first wins a draw.
    """
    best: tuple[int, str, Parts] | None = None
    for name in names:
        if best is None or CODECS[name].least(array, non_zeros) < best[0]:
            parts = CODECS[name].encode(array)
            size = sum(part.nbytes for part in parts.values())
            if best is None or size < best[0]:
                best = (size, name, parts)
    if best is None:
        raise ValueError("no codec given")
    return best[1], best[2]


# Dense: every value in row-major order, in one entry under the tensor's own name.


def _dense_least(array: Array, non_zeros: int) -> int:
    return array.nbytes


def _dense_encode(array: Array) -> Parts:
    return {"": array}


def _dense_check(parts: Parts, entry: Entry) -> None:
    part = parts[""]
    if part.shape != entry.shape:
        raise ValueError(f"shape {list(part.shape)} is not the index's {list(entry.shape)}")
    allowed = VALUES.values() if entry.is_float else (entry.numpy_dtype,)
    if part.dtype not in allowed:
        raise ValueError(f"dtype {part.dtype} cannot hold a tensor of {entry.dtype}")


def _dense_decode(parts: Parts, entry: Entry) -> Array:
    part = parts[""]
    if part.dtype == np.bool_ and part.size and part.view(np.uint8).max() > 1:
        raise ValueError("a truth value is neither 0 nor 1")
    if np.count_nonzero(part) != entry.non_zeros:
        raise ValueError(f"does not have the {entry.non_zeros:,} non-zeros the index states")
    return decode_values(part) if entry.is_float else part.astype(part.dtype.newbyteorder("="))


# Gaps: the zeros before each non-zero, in bytes, and the non-zero values, in row-major order.


def _gaps_least(array: Array, non_zeros: int) -> int:
    return non_zeros * (1 + array.itemsize)


def _gaps_encode(array: Array) -> Parts:
    flat = array.reshape(-1)
    positions = np.flatnonzero(flat.view(f"<u{array.itemsize}"))  # zero is all bits zero
    skips, gaps = np.divmod(np.diff(positions, prepend=-1) - 1, SKIP)
    covered = int(positions[-1]) + 1 if positions.size else 0
    ends = np.cumsum(skips + 1)  # each non-zero takes its skips and one byte
    used = int(ends[-1]) if positions.size else 0
    stream = np.full(used + (flat.size - covered) // SKIP, SKIP, np.uint8)
    stream[ends - 1] = gaps
    return {".gaps": stream, ".values": flat[positions]}


def _gaps_check(parts: Parts, entry: Entry) -> None:
    gaps, values = parts[".gaps"], parts[".values"]
    if not entry.is_float or gaps.dtype != np.uint8 or values.dtype not in VALUES.values():
        raise ValueError("gap coding needs bytes for the gaps and F16 or F32 for the values")
    if gaps.ndim != 1 or values.shape != (entry.non_zeros,) or gaps.size < entry.non_zeros:
        raise ValueError(f"does not have the {entry.non_zeros:,} non-zeros the index states")


def _gaps_decode(parts: Parts, entry: Entry) -> Array:
    gaps = parts[".gaps"]
    non_zero = gaps != SKIP
    ends = np.cumsum(np.add(gaps, non_zero, dtype=np.uint16), dtype=np.int64)
    # Checked before the tensor is allocated: each byte covers at most 255 positions, so that a
    # tensor has at most 255 elements per byte in the file (and fewer than 255 more).
    uncovered = entry.size - (int(ends[-1]) if ends.size else 0)
    if not 0 <= uncovered < SKIP:
        raise ValueError(f"gaps do not add up to the {entry.size:,} elements of the tensor")
    positions = ends[non_zero] - 1
    values = decode_values(parts[".values"])
    if positions.size != values.size or not np.all(values):
        raise ValueError(f"does not have the {entry.non_zeros:,} non-zeros the index states")
    array: Array = np.zeros(entry.size, np.float32)
    array[positions] = values
    return array.reshape(entry.shape)


CODECS: dict[str, Codec] = {
    "dense": Codec(("",), _dense_least, _dense_encode, _dense_check, _dense_decode),
    "gaps": Codec((".gaps", ".values"), _gaps_least, _gaps_encode, _gaps_check, _gaps_decode),
}
