"""Whole numbers as bits: fixed width, unary, one after the other; and a cursor over the bytes of one tensor.

Knows neither tensors nor which code suits which numbers. Everything is numpy: no loop over numbers. What a damaged
file can get wrong is reported as ValueError, before memory is taken.
"""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint32]

LARGEST = 2**31 - 1  # elements of a tensor, and so every position and gap
CHUNK = 1 << 16  # bytes of unary code turned into bits at a time


class Reader:
    """A cursor over `data`; ValueError where the bytes end early."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> NDArray[np.uint8]:
        """The next `count` bytes, a view."""
        if count > len(self.data) - self.at:
            raise ValueError("its stored bytes end too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        """The next number of `varint`; at most 35 bits."""
        number = 0
        for shift in range(0, 35, 7):
            byte = int(self.take(1)[0])
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number among its stored bytes is too long")

    def finish(self) -> None:
        """ValueError where bytes are left over."""
        if self.at != len(self.data):
            raise ValueError(f"has {len(self.data) - self.at:,} stored bytes too many")


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the last byte is below 128."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


# Fixed width


def fixed_size(count: int, width: int) -> int:
    """Bytes of `pack_fixed`."""
    return count * (width // 8) + -(-count * (width % 8) // 8)


def pack_fixed(numbers: Numbers, width: int) -> bytes:
    """The low `width` bits of each number: a plane per whole byte, lowest first, then the upper bits left over.

    Those lie one number after the other, highest bit first; the last byte is filled up with zeros.
    """
    planes = [((numbers >> shift) & 255).astype(np.uint8).tobytes() for shift in range(0, width - 7, 8)]
    rest, above = width % 8, width - width % 8
    if rest:
        words = np.zeros((-(-len(numbers) // 8), 8), np.uint64)  # eight numbers fill `rest` bytes
        words.reshape(-1)[: len(numbers)] = (numbers >> above) & ((1 << rest) - 1)
        joined = np.bitwise_or.reduce(words << _shifts(rest), axis=1)
        filled = joined.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - rest :]
        planes.append(filled.tobytes()[: fixed_size(len(numbers), rest)])
    return b"".join(planes)


def unpack_fixed(source: Reader, count: int, width: int) -> Numbers:
    """The numbers that `pack_fixed` stored."""
    data = source.take(fixed_size(count, width))
    whole, rest = divmod(width, 8)
    numbers = np.zeros(count, np.uint32)
    for plane in range(whole):
        numbers |= data[plane * count : (plane + 1) * count].astype(np.uint32) << (8 * plane)
    if rest:
        packed = data[whole * count :]
        words = np.zeros((-(-count // 8), 8), np.uint8)
        padded = np.zeros(len(words) * rest, np.uint8)
        padded[: len(packed)] = packed
        words[:, 8 - rest :] = padded.reshape(-1, rest)
        joined = words.view(">u8").astype(np.uint64)  # (n, 1)
        upper = (joined >> _shifts(rest)).astype(np.uint8) & ((1 << rest) - 1)
        numbers |= upper.reshape(-1)[:count].astype(np.uint32) << (8 * whole)
    return numbers


def _shifts(width: int) -> NDArray[np.uint64]:
    return np.arange(7, -1, -1, dtype=np.uint64) * np.uint64(width)


# Unary


def pack_unary(numbers: Numbers) -> bytes:
    """Each number as that many 0 bits and a 1; highest bit of a byte first, the last filled up with zeros."""
    ends = np.cumsum(numbers + np.uint32(1), dtype=np.int64) - 1
    bits = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    bits[ends] = 1
    return np.packbits(bits).tobytes()


def unpack_unary(source: Reader, count: int, size: int) -> NDArray[np.int32]:
    """Where the `count` ones lie among the bits of the next `size` bytes; their number and end are checked.

    The numbers are the gaps between them.
    """
    data = source.take(size)
    if size > LARGEST // 8 or count > 8 * size or (size and not data[-1]):
        raise ValueError("the numbers stored in unary are not as many as the index states")
    ends = np.empty(count, np.int32)
    found = 0
    for start in range(0, size, CHUNK):
        ones = np.flatnonzero(np.unpackbits(data[start : start + CHUNK]).view(np.bool_))
        if found + len(ones) > count:
            break
        ends[found : found + len(ones)] = ones
        ends[found : found + len(ones)] += 8 * start
        found += len(ones)
    else:
        if found == count:
            return ends
    raise ValueError("the numbers stored in unary are not as many as the index states")


def gaps_between(ends: NDArray[np.int32]) -> Numbers:
    """How many bits lie before each end since the one before. Overwrites `ends`."""
    gaps = ends.view(np.uint32)
    gaps[1:] -= gaps[:-1] + np.uint32(1)
    return gaps
