"""One tensor as bytes and back: a mask codec for where its non-zeros lie, and its values in that order.

The smallest of the mask codecs is taken, `dense` (every element has its value) among them. Knows index entries, not
files; a contradiction is a ValueError, to which the caller adds file and tensor.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.store import values
from laconic.store.bits import LARGEST, Reader
from laconic.store.index import CHECKSUM, DENSE, STEP, Entry
from laconic.store.masks import MASKS, Positions, matrix_shape, pays_classes
from laconic.store.values import VALUES, Array

TINY = 64  # elements up to which float32 may be shorter than a step and codes
FEW = 1024  # weights up to which a depthwise kernel is float32 under "half"
_STEP = np.dtype("<f4")


@dataclass(frozen=True)
class Csr:
    """A tensor as compressed sparse rows: a matrix of its first dimension and all others; a vector is one row.

    `indptr` (rows + 1) and `indices` (non-zeros) are int32, `values` has the dtype of the tensor; columns rise within
    a row. `shape` is that of the tensor.
    """

    shape: tuple[int, ...]
    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    values: Array


@dataclass(frozen=True)
class Encoded:
    """A tensor as it lies in the file, without its checksum."""

    mask: str
    values: str
    non_zeros: int
    payload: bytes


@dataclass(frozen=True)
class _Rounded:
    """Values as they will decode, as far as zeros go, and the bytes of a choice of them (None: of all)."""

    stored: str
    flat: Array
    head: bytes
    encode: Callable[[NDArray[np.intp] | Positions | None], bytes]


def encode(array: Array, precision: str, step: float | None = None) -> Encoded:
    """The smallest way to store `array`: float16 or float32 in a precision of VALUES, whole numbers as they are.

    `step`: the array lies on the grid of this step, which is kept; only for precisions with steps. ValueError for
    values that cannot be stored.
    """
    if array.size > LARGEST:
        raise ValueError(f"has {array.size:,} elements, the limit is {LARGEST:,}; split it")
    found = [_smallest(rounded, array.shape) for rounded in _roundings(array, precision, step)]
    return min(found, key=lambda encoded: len(encoded.payload))


def _roundings(array: Array, precision: str, step: float | None) -> list[_Rounded]:
    if array.dtype.kind != "f":
        return [_as_planes(array.reshape(-1), "raw")]
    stored = VALUES[precision].stored
    if stored != STEP:
        stored = "f32" if keeps_float32(array.shape) else stored
        return [_as_planes(values.as_float(array, stored), stored)]
    exact = values.as_float(array, "f32")
    if step is not None:
        return [_as_codes(values.codes_on_grid(exact, step), step)]
    plain = VALUES[precision]
    if plain.loses_nothing:
        stored = values.shortest_float(exact)
        return [_as_planes(exact.astype(values.FLOATS[stored]), stored)]
    found = values.plain_step(exact, plain.vector_step if array.ndim < 2 else plain.matrix_step)
    roundings = [] if found is None else [_as_codes(values.round_to_codes(exact, found), found)]
    return roundings + [_as_planes(exact, "f32")] * (found is None or array.size <= TINY)


def keeps_float32(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape is not rounded to float16: a depthwise convolution of few kernels.

    The taps of such a filter all but cancel: float16 of 288 weights moves MobileNet-V2's logits by 1.6 %.
    """
    return len(shape) == 4 and shape[1] == 1 and math.prod(shape) <= FEW


def _as_planes(flat: Array, stored: str) -> _Rounded:
    return _Rounded(stored, flat, b"", lambda at: values.encode_planes(flat if at is None else flat[at]))


def _as_codes(codes: values.Codes, step: float) -> _Rounded:
    def encode_some(at: NDArray[np.intp] | Positions | None) -> bytes:
        return values.encode_codes(codes if at is None else codes[at], zeros=at is None)

    return _Rounded(STEP, codes, np.array(step, _STEP).tobytes(), encode_some)


def _smallest(rounded: _Rounded, shape: tuple[int, ...]) -> Encoded:
    size, non_zeros = rounded.flat.size, int(np.count_nonzero(rounded.flat))
    sparse = rounded.stored != "raw"
    if sparse and not non_zeros:
        return Encoded("gaps", rounded.stored, 0, b"")
    choices = []
    if not sparse or non_zeros >= size // 16:
        choices.append(Encoded(DENSE, rounded.stored, non_zeros, rounded.head + rounded.encode(None)))
    if sparse and non_zeros < size:
        mask, positions, where = _smallest_mask(rounded.flat, matrix_shape(shape))
        payload = rounded.head + where + rounded.encode(positions)
        choices.append(Encoded(mask, rounded.stored, non_zeros, payload))
    return min(choices, key=lambda choice: len(choice.payload))


def _smallest_mask(flat: Array, matrix: tuple[int, int]) -> tuple[str, Positions, bytes]:
    """Name, positions in the order in which they are stored, and bytes."""
    positions = np.flatnonzero(flat).astype(np.int32)
    best: tuple[str, Positions, bytes] | None = None
    for name, codec in MASKS.items():
        if name == "bitmap" and len(positions) < flat.size // 32:
            continue
        if name == "classes" and (matrix[0] == 1 or best is None or not pays_classes(matrix, len(best[2]))):
            continue
        data, order = codec.encode(positions, matrix)
        fits = name != "classes" or pays_classes(matrix, len(data))
        if best is None or (fits and len(data) < len(best[2])):
            best = name, positions if order is None else positions[order], data
    if best is None:
        raise ValueError("no mask codec is known")
    return best


# Decoding


def decode_sparse(entry: Entry, payload: NDArray[np.uint8]) -> tuple[Positions | None, Array]:
    """Positions of the non-zeros, in the order in which they are stored, and their values; all of `payload` is used.

    The positions are distinct. None stands for all elements, zeros among them. Memory is taken as the stored
    non-zeros need it, whatever the shape says.
    """
    source = Reader(payload)
    dense = entry.mask == DENSE
    positions: Positions | None = None
    found: Array
    if not dense and not entry.non_zeros:
        source.finish()
        return np.empty(0, np.int32), np.empty(0, entry.numpy_dtype)
    step = read_step(entry, source) if entry.values == STEP else 0.0
    if not dense:
        positions = MASKS[entry.mask].decode(source, entry.non_zeros, matrix_shape(entry.shape))
    count = entry.size if dense else entry.non_zeros
    if entry.values == STEP:
        found = values.decode_codes(source, count, step, zeros=dense)
    else:
        stored = values.FLOATS.get(entry.values, entry.numpy_dtype)
        found = values.decode_planes(source, count, stored).astype(entry.numpy_dtype, copy=False)
    source.finish()
    if np.count_nonzero(found) != entry.non_zeros:
        raise ValueError(f"does not have the {entry.non_zeros:,} non-zeros the index states")
    return positions, found


def read_step(entry: Entry, source: Reader) -> float:
    """The step that a tensor's bytes begin with."""
    step = float(source.take(_STEP.itemsize).view(_STEP)[0])
    if not 0 < step < float("inf"):
        raise ValueError("its step is not a positive number")
    return step


def decode_dense(entry: Entry, payload: NDArray[np.uint8]) -> Array:
    """The tensor, a new array."""
    positions, found = decode_sparse(entry, payload)
    if positions is None:
        return found.reshape(entry.shape)
    array: Array = np.zeros(entry.size, entry.numpy_dtype)
    array[positions] = found
    return array.reshape(entry.shape)


def decode_csr(entry: Entry, payload: NDArray[np.uint8]) -> Csr:
    """The tensor as compressed sparse rows; nothing of its dense size is made, unless it is stored densely."""
    positions, found = decode_sparse(entry, payload)
    rows, columns = matrix_shape(entry.shape)
    if positions is None:
        positions = np.flatnonzero(found).astype(np.int32)
        found = found[positions]
    elif entry.mask == "classes":
        positions, found = _sorted(positions, found)
    firsts = np.arange(rows + 1, dtype=np.int32) * np.int32(columns)
    indptr = np.searchsorted(positions, firsts).astype(np.int32)
    positions -= np.repeat(firsts[:-1], np.diff(indptr))
    return Csr(entry.shape, indptr, positions, found)


def _sorted(positions: Positions, found: Array) -> tuple[Positions, Array]:
    """By position. One key holds both, and is sorted in place: less memory than an order of 64-bit indices."""
    keys = positions.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= found.view(np.uint32)
    keys.sort()
    np.right_shift(keys, 32, out=positions, casting="unsafe")
    found.view(np.uint32)[:] = keys
    return positions, found


# Checksums


def seal(payload: bytes) -> bytes:
    """A tensor's bytes and their CRC-32."""
    return payload + zlib.crc32(payload).to_bytes(CHECKSUM, "little")


def checked(sealed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tensor's bytes without their CRC-32. ValueError where that is another."""
    payload = sealed[:-CHECKSUM]
    if zlib.crc32(payload.data) != int.from_bytes(sealed[-CHECKSUM:].tobytes(), "little"):
        raise ValueError("its stored bytes do not have their checksum")
    return payload
