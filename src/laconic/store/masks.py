"""Which elements of a tensor are not zero, in few bytes: the codecs bitmap, gaps and classes.

A tensor is seen as a matrix: its first dimension and all others together. Positions are those in row-major order.
Nothing is known here of values; only that they follow in the order in which a codec stores its positions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from laconic.store import integers
from laconic.store.bits import Numbers, Reader, gaps_between, pack_fixed, pack_unary, unpack_fixed, unpack_unary, varint

Positions = NDArray[np.int32]

RESOLUTIONS = (0.0, 0.5, 1.0, 1.5, 2.0)  # classes per doubling of the density; 0: one class of all that live
CLASSES = 64  # of rows, and of columns, at most
COUNT_BITS = 10  # that a bin costs beside its gaps, for the estimate
ROWS_PER_BYTE = 64  # rows and columns that a stored byte may class at most


@dataclass(frozen=True)
class MaskCodec:
    """`encode`: positions, rising, and (rows, columns) -> bytes and the order in which they are stored (None: as is).

    `decode`: the stored positions, distinct and within the matrix, in that order; ValueError for anything else.
    """

    encode: Callable[[Positions, tuple[int, int]], tuple[bytes, NDArray[np.intp] | None]]
    decode: Callable[[Reader, int, tuple[int, int]], Positions]


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns); a vector is one row."""
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


# bitmap: a bit per element


def _encode_bitmap(positions: Positions, matrix: tuple[int, int]) -> tuple[bytes, None]:
    bits = np.zeros(matrix[0] * matrix[1], np.bool_)
    bits[positions] = True
    return integers.encode(np.packbits(bits).astype(np.uint32)), None


def _decode_bitmap(source: Reader, count: int, matrix: tuple[int, int]) -> Positions:
    size = matrix[0] * matrix[1]
    numbers = integers.decode(source, -(-size // 8))
    if int(numbers.max(initial=0)) > 255:
        raise ValueError("its bitmap holds more than bits")
    positions = np.flatnonzero(np.unpackbits(numbers.astype(np.uint8)).view(np.bool_)).astype(np.int32)
    if len(positions) != count or (count and positions[-1] >= size):
        raise ValueError(f"does not have the {count:,} non-zeros the index states")
    return positions


# gaps: how many zeros precede each non-zero


def _encode_gaps(positions: Positions, matrix: tuple[int, int]) -> tuple[bytes, None]:
    return integers.encode((np.diff(positions, prepend=np.int32(-1)) - 1).astype(np.uint32)), None


def _decode_gaps(source: Reader, count: int, matrix: tuple[int, int]) -> Positions:
    return _walk(integers.decode(source, count), matrix[0] * matrix[1])


def _walk(gaps: Numbers, size: int) -> Positions:
    """Positions from the gaps before them; the last must be below `size`. Overwrites `gaps`."""
    if len(gaps) and int(gaps.sum(dtype=np.uint64)) + len(gaps) > size:
        raise ValueError(f"its gaps lead beyond its {size:,} elements")
    gaps += np.uint32(1)
    np.cumsum(gaps, out=gaps)
    gaps -= np.uint32(1)
    return gaps.view(np.int32)


# classes: rows and columns grouped by how many non-zeros they have. Elements whose row class and column class add up to
# the same sum are about equally likely to be non-zero; they form a bin, in which gaps are coded with one parameter.


class _Bins:
    """Places of a matrix whose rows and columns have these classes; class 0 has no non-zeros and no places.

    A bin holds blocks, by rising row class: all rows of that class, row by row, in the columns of the class that makes
    up the bin's sum.
    """

    def __init__(self, row_classes: Numbers, column_classes: Numbers) -> None:
        self.width = len(column_classes)
        self.rows, self.row_starts, self.row_counts = _members(row_classes)
        self.columns, self.column_starts, self.column_counts = _members(column_classes)
        places = np.convolve(self.row_counts, self.column_counts)
        self.sums = np.flatnonzero(places)
        self.places = places[self.sums]

    def blocks(self, total: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Row class, column class and first place of each block of the bin with this sum."""
        of_rows = np.arange(max(1, total - CLASSES + 1), min(total, CLASSES))
        lengths = self.row_counts[of_rows] * self.column_counts[total - of_rows]
        return of_rows, total - of_rows, np.cumsum(lengths) - lengths

    def positions(self, total: int, places: Positions) -> Positions:
        """Positions in the matrix of rising `places` in the bin with this sum."""
        of_rows, of_columns, firsts = self.blocks(total)
        counts = np.diff(np.searchsorted(places, firsts), append=len(places))

        def spread(numbers: NDArray[np.intp]) -> Positions:
            return np.repeat(numbers.astype(np.int32), counts)

        rows, columns = np.divmod(places - spread(firsts), spread(self.column_counts[of_columns]))
        rows += spread(self.row_starts[of_rows])
        columns += spread(self.column_starts[of_columns])
        return self.rows[rows] * np.int32(self.width) + self.columns[columns]


def _members(classes: Numbers) -> tuple[Positions, NDArray[np.intp], NDArray[np.intp]]:
    """Indices sorted by class; where each class begins among them; how many it has (class 0: none)."""
    counts = np.bincount(classes, minlength=CLASSES)
    starts = np.cumsum(counts) - counts
    counts[0] = 0
    return np.argsort(classes, kind="stable").astype(np.int32), starts, counts


def _ranks(members: Positions, starts: NDArray[np.intp], classes: Numbers) -> NDArray[np.intp]:
    """Place of each index among those of its class."""
    ranks = np.empty(len(members), np.intp)
    ranks[members] = np.arange(len(members)) - starts[classes[members]]
    return ranks


def _encode_classes(positions: Positions, matrix: tuple[int, int]) -> tuple[bytes, NDArray[np.intp]]:
    rows, columns = np.divmod(positions, np.int32(matrix[1]))
    row_classes, column_classes = _choose_classes(rows, columns, matrix)
    bins = _Bins(row_classes, column_classes)
    row_ranks = _ranks(bins.rows, bins.row_starts, row_classes)
    column_ranks = _ranks(bins.columns, bins.column_starts, column_classes)
    totals = row_classes[rows] + column_classes[columns]
    orders, quotients, remainders = [], [], []
    for total, size in zip(bins.sums.tolist(), bins.places.tolist(), strict=True):
        inside = np.flatnonzero(totals == total)
        _, of_columns, firsts = bins.blocks(total)
        row_class = row_classes[rows[inside]]
        block = row_class - max(1, total - CLASSES + 1)
        places = firsts[block] + row_ranks[rows[inside]] * bins.column_counts[of_columns[block]]
        places += column_ranks[columns[inside]]
        order = np.argsort(places)
        orders.append(inside[order])
        gaps = (np.diff(places[order], prepend=-1) - 1).astype(np.uint32)
        shift = _shift(size, len(inside))
        quotients.append(gaps >> shift)
        remainders.append(pack_fixed(gaps, shift))
    counts = np.array([len(order) for order in orders], np.uint32)
    unary = pack_unary(np.concatenate(quotients))
    heads = [integers.encode(numbers) for numbers in (row_classes, column_classes, counts)]
    return b"".join([*heads, varint(len(unary)), unary, *remainders]), np.concatenate(orders)


def _decode_classes(source: Reader, count: int, matrix: tuple[int, int]) -> Positions:
    if not pays_classes(matrix, len(source.data)):
        raise ValueError("has more rows and columns than its stored bytes can class")
    row_classes, column_classes = integers.decode(source, matrix[0]), integers.decode(source, matrix[1])
    if max(int(row_classes.max(initial=0)), int(column_classes.max(initial=0))) >= CLASSES:
        raise ValueError("a class of its rows or columns is unknown")
    bins = _Bins(row_classes, column_classes)
    counts = integers.decode(source, len(bins.sums))
    if int(counts.sum(dtype=np.uint64)) != count or np.any(counts > bins.places):
        raise ValueError(f"does not have the {count:,} non-zeros the index states")
    numbers = gaps_between(unpack_unary(source, count, source.varint()))
    start = 0
    for total, size, some in zip(bins.sums.tolist(), bins.places.tolist(), counts.tolist(), strict=True):
        gaps = numbers[start : start + some]
        shift = _shift(size, some)
        if int(gaps.max(initial=0)) << shift > size:
            raise ValueError(f"its gaps lead beyond its {size:,} elements")
        gaps <<= np.uint32(shift)
        gaps |= unpack_fixed(source, some, shift)
        gaps.view(np.int32)[:] = bins.positions(total, _walk(gaps, size))
        start += some
    return numbers.view(np.int32)


def pays_classes(matrix: tuple[int, int], stored: int) -> bool:
    """Whether `stored` bytes may hold classes of that many rows and columns: what bounds the memory they take."""
    return sum(matrix) <= ROWS_PER_BYTE * stored


def _shift(size: int, count: int) -> int:
    """Rice parameter for `count` of `size` places: floor(log2(ln 2 * size / count)), with 177 / 256 for ln 2."""
    return max(0, (size * 177 // 256 // count).bit_length() - 1) if count else 0


def _choose_classes(rows: Positions, columns: Positions, matrix: tuple[int, int]) -> tuple[Numbers, Numbers]:
    """The resolutions with the smallest estimate: entropy of the classes, and log2 C(places, non-zeros) of the bins."""
    row_counts, column_counts = np.bincount(rows, minlength=matrix[0]), np.bincount(columns, minlength=matrix[1])

    def bits(classes: tuple[Numbers, Numbers]) -> float:
        bins = _Bins(*classes)
        found = np.bincount(classes[0][rows] + classes[1][columns], minlength=2 * CLASSES)[bins.sums]
        inside = sum(log2_choose(n, k) + COUNT_BITS for n, k in zip(bins.places.tolist(), found.tolist(), strict=True))
        return inside + entropy_bits(classes[0]) + entropy_bits(classes[1])

    by_row = [_classes(row_counts, resolution) for resolution in RESOLUTIONS]
    by_column = [_classes(column_counts, resolution) for resolution in RESOLUTIONS]
    return min(product(by_row, by_column), key=bits)


def _classes(counts: NDArray[np.intp], resolution: float) -> Numbers:
    """0 for a count of 0; else 1 for the lowest counts, and `resolution` more for each doubling."""
    live = counts > 0
    levels = np.floor(np.log2(np.maximum(counts, 1)) * resolution + 0.5)
    return np.where(live, levels - levels[live].min() + 1, 0).astype(np.uint32)


def log2_choose(n: int, k: int) -> float:
    """log2 of n over k: the bits that say which k of n."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def entropy_bits(symbols: NDArray[np.generic]) -> float:
    """Order-0 entropy of a sequence, in bits for all of it."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(symbols))).sum()) if len(symbols) else 0.0


MASKS: dict[str, MaskCodec] = {
    "bitmap": MaskCodec(_encode_bitmap, _decode_bitmap),
    "gaps": MaskCodec(_encode_gaps, _decode_gaps),
    "classes": MaskCodec(_encode_classes, _decode_classes),
}
