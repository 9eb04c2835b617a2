"""Sequences of whole numbers below 2**32 in few bytes: fixed width, Rice, or Huffman; the smallest is taken.

Gaps between non-zeros, codes of values, bytes of floats and classes of rows are all such sequences. Nothing here
knows what they stand for. A sequence begins with a byte: method and parameter. How many numbers there are is known
to whoever reads.
"""

import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from laconic.store.bits import (
    Numbers,
    Reader,
    fixed_size,
    gaps_between,
    pack_fixed,
    pack_unary,
    unpack_fixed,
    unpack_unary,
    varint,
)

FIXED, RICE, HUFFMAN = 0, 64, 128  # added to the parameter, which is below 64
EXACT = range(3, 8)  # parameter of HUFFMAN: bits of a number's head that the symbol keeps, less one
REPEATS = 1 << 16  # numbers up to which repeated strings are looked for as well


def encode(numbers: Numbers) -> bytes:
    """The shortest of the codes."""
    largest = int(numbers.max(initial=0))
    width = max(1, largest.bit_length())  # every number costs something, so that a short file cannot claim many
    shift, rice_bytes = rice_parameter(numbers)
    candidates = [_huffman(numbers, exact) for exact in EXACT if largest < _limit(exact)]
    best = min(candidates, key=len)
    if 1 + fixed_size(len(numbers), width) <= min(rice_bytes, len(best)):
        return bytes([FIXED + width]) + pack_fixed(numbers, width)
    if rice_bytes <= len(best):
        return bytes([RICE + shift]) + encode_rice(numbers, shift)
    return best


def decode(source: Reader, count: int) -> Numbers:
    """The next `count` numbers."""
    (head,) = source.take(1).tolist()
    method, parameter = head & 192, head & 63
    if method == FIXED and 1 <= parameter <= 32:
        return unpack_fixed(source, count, parameter)
    if method == RICE and parameter < 32:
        return decode_rice(source, count, parameter)
    if method == HUFFMAN and parameter in EXACT:
        return _decode_huffman(source, count, parameter)
    raise ValueError(f"code {head} of a sequence is unknown")


# Rice: quotient by 2**k in unary, remainder in k bits


def rice_parameter(numbers: Numbers) -> tuple[int, int]:
    """The best k for `numbers`, and about how many bytes they take with it."""
    best = (0, 2**62)
    for shift in range(32):
        bits = int((numbers >> np.uint32(shift)).sum(dtype=np.uint64)) + (1 + shift) * len(numbers)
        if bits >= best[1]:
            break
        best = (shift, bits)
    return best[0], 5 + best[1] // 8


def encode_rice(numbers: Numbers, shift: int) -> bytes:
    unary = pack_unary(numbers >> np.uint32(shift))
    return varint(len(unary)) + unary + pack_fixed(numbers, shift)


def decode_rice(source: Reader, count: int, shift: int) -> Numbers:
    numbers = gaps_between(unpack_unary(source, count, source.varint()))
    if int(numbers.max(initial=0)) << shift >= 2**32:
        raise ValueError("a number among its stored bytes is too large")
    if shift:
        numbers <<= shift
        numbers |= unpack_fixed(source, count, shift)
    return numbers


# Huffman: symbols below 256 in a deflate stream; a symbol stands for a range of numbers, whose offset follows


def _huffman(numbers: Numbers, exact: int) -> bytes:
    firsts, widths = _ranges(exact)
    symbols = (np.searchsorted(firsts, numbers, "right") - 1).astype(np.uint8)
    stream = deflate(symbols.tobytes())
    parts = [bytes([HUFFMAN + exact]), varint(len(stream)), stream]
    used = widths[symbols]
    for width in range(1, int(used.max(initial=0)) + 1):
        some = np.flatnonzero(used == width)
        parts.append(pack_fixed(numbers[some] - firsts[symbols[some]], width))
    return b"".join(parts)


def _decode_huffman(source: Reader, count: int, exact: int) -> Numbers:
    firsts, widths = _ranges(exact)
    symbols = np.frombuffer(inflate(source.take(source.varint()), count), np.uint8)
    largest = int(symbols.max(initial=0))
    if largest >= len(firsts):
        raise ValueError("a symbol among its stored bytes is unknown")
    if largest < 2 << exact:
        return symbols.astype(np.uint32)
    numbers = firsts[symbols]
    used = widths[symbols]
    for width in range(1, int(widths[largest]) + 1):
        some = np.flatnonzero(used == width)
        numbers[some] += unpack_fixed(source, len(some), width)
    return numbers


@cache
def _ranges(exact: int) -> tuple[Numbers, NDArray[np.uint8]]:
    """First number and bits of the offset for each symbol.

    Numbers below 2**(exact + 1) have a symbol each; beyond, each doubling has 2**exact of them.
    """
    firsts, widths = list(range(2 << exact)), [0] * (2 << exact)
    while len(firsts) + (1 << exact) <= 256 and firsts[-1] < 2**31:
        width = widths[-1] + 1
        firsts += [(head << width) for head in range(1 << exact, 2 << exact)]
        widths += [width] * (1 << exact)
    return np.array(firsts, np.uint32), np.array(widths, np.uint8)


def _limit(exact: int) -> int:
    firsts, widths = _ranges(exact)
    return min(int(firsts[-1]) + (1 << int(widths[-1])), 2**32)


# Deflate


def deflate(data: bytes) -> bytes:
    """A raw deflate stream (RFC 1951): Huffman codes alone, or repeated strings, too, where they pay."""
    repeats = len(data) <= REPEATS or data.count(data[:1]) == len(data)
    strategies = [zlib.Z_HUFFMAN_ONLY] + [zlib.Z_DEFAULT_STRATEGY] * repeats
    streams = []
    for strategy in strategies:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
        streams.append(packer.compress(data) + packer.flush())
    return min(streams, key=len)


def inflate(data: NDArray[np.uint8], size: int) -> bytes:
    """What `deflate` was given, `size` bytes; ValueError for anything else. Takes no more memory than `size`."""
    unpacker = zlib.decompressobj(-15)
    try:
        plain = unpacker.decompress(data.data, size + 1)
    except zlib.error as error:
        raise ValueError(f"a deflate stream among its stored bytes is damaged ({error})") from None
    if len(plain) != size or not unpacker.eof or unpacker.unused_data or unpacker.unconsumed_tail:
        raise ValueError("a deflate stream among its stored bytes has another length than the index states")
    return plain
