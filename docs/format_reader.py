"""A second reader of packed files: docs/FORMAT.md in plain Python, one bit after the other, without any checks.

    tensors, config = read("tiny.safetensors")

For those who write a reader of their own, and for the tests, which hold laconic's against it. Trust it with no file
of strangers: laconic.store refuses what is damaged or hostile, this does not.
"""

import json
import math
import zlib
from typing import Any

import numpy as np
from safetensors import safe_open


class Bytes:
    """A cursor over bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        byte = self.take(1)[0]
        return byte if byte < 128 else byte - 128 + 128 * self.varint()

    def bits(self, count: int) -> str:
        return "".join(f"{byte:08b}" for byte in self.take(-(-count // 8)))

    def fixed(self, count: int, width: int) -> list[int]:
        planes, rest = [self.take(count) for _ in range(width // 8)], width % 8
        bits = self.bits(count * rest)
        upper = [int(bits[i * rest : (i + 1) * rest] or "0", 2) for i in range(count)]
        return [
            sum(plane[i] << 8 * j for j, plane in enumerate(planes)) + (upper[i] << width - rest) for i in range(count)
        ]

    def unary(self, count: int) -> list[int]:
        return [len(zeros) for zeros in self.bits(8 * self.varint()).split("1")[:count]]

    def sequence(self, count: int) -> list[int]:
        head = self.take(1)[0]
        code, k = head & 192, head & 63
        if code == 0:
            return self.fixed(count, k)
        if code == 64:
            return [
                quotient << k | rest for quotient, rest in zip(self.unary(count), self.fixed(count, k), strict=True)
            ]
        symbols = zlib.decompress(self.take(self.varint()), -15)
        widths = [max(0, (symbol >> k) - 1) for symbol in symbols]
        numbers = [
            symbol if width == 0 else ((symbol & (1 << k) - 1) + (1 << k)) << width
            for symbol, width in zip(symbols, widths, strict=True)
        ]
        for width in range(1, max(widths, default=0) + 1):
            some = [i for i in range(count) if widths[i] == width]
            for i, low in zip(some, self.fixed(len(some), width), strict=True):
                numbers[i] += low
        return numbers


def positions(source: Bytes, mask: str, nnz: int, rows: int, columns: int) -> list[int]:
    if mask == "bitmap":
        bits = "".join(f"{byte:08b}" for byte in source.sequence(-(-rows * columns // 8)))
        return [i for i, bit in enumerate(bits) if bit == "1"]
    if mask == "gaps":
        return after(source.sequence(nnz))
    of_rows, of_columns = source.sequence(rows), source.sequence(columns)
    bins = [
        [
            row * columns + column
            for row_class in range(1, total)
            for row in range(rows)
            if of_rows[row] == row_class
            for column in range(columns)
            if of_columns[column] == total - row_class
        ]
        for total in range(2, max(of_rows) + max(of_columns) + 1)
    ]
    bins = [places for places in bins if places]
    counts = source.sequence(len(bins))
    quotients = iter(source.unary(nnz))
    found = []
    for places, count in zip(bins, counts, strict=True):
        k = max(0, (len(places) * 177 // 256 // count).bit_length() - 1) if count else 0
        gaps = [next(quotients) << k | rest for rest in source.fixed(count, k)]
        found += [places[place] for place in after(gaps)]
    return found


def after(gaps: list[int]) -> list[int]:
    """Places of non-zeros from the zeros before each."""
    places, at = [], -1
    for gap in gaps:
        at += gap + 1
        places.append(at)
    return places


def values(source: Bytes, kind: str, count: int, dense: bool, step: float | None) -> np.ndarray:
    if step is not None:
        middle = code(source.varint()) if dense else 0
        codes = [code(number if dense else number + 1) + middle for number in source.sequence(count)]
        return np.array(codes, np.float32) * np.float32(step)
    dtype = np.dtype(kind)
    numbers = [0] * count
    for _ in range(dtype.itemsize):
        numbers = [number << 8 | byte for number, byte in zip(numbers, source.sequence(count), strict=True)]
    if dtype.kind == "f":
        numbers = [number >> 1 | (number & 1) << 8 * dtype.itemsize - 1 for number in numbers]
    return np.array(numbers, f"<u{dtype.itemsize}").view(dtype)


def code(number: int) -> int:
    """0, 1, -1, 2, -2, ..."""
    return (number + 1) // 2 if number % 2 else -(number // 2)


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by name, and the configuration."""
    with safe_open(path, framework="np") as file:
        if file.metadata().get("format") != "laconic" or file.metadata()["version"] != "2":
            raise ValueError("not a file this reader knows")
        text, data = (file.get_tensor(name).tobytes() for name in ("_index", "data"))
    index, remaining, tensors = json.loads(zlib.decompress(text)), Bytes(data), {}
    for row in index["tensors"]:
        if "tied_to" in row:
            tensors[row["name"]] = row["tied_to"]
            continue
        shape, dense = row["shape"], row["mask"] == "dense"
        size, source = math.prod(shape), Bytes(remaining.take(row["bytes"]))
        letter = {"F": "f", "I": "i", "U": "u", "B": "?"}[row["dtype"][0]]
        dtype = letter if letter == "?" else f"<{letter}{int(row['dtype'][1:]) // 8}"
        array = np.zeros(size, dtype)
        if dense or row["nnz"]:
            step = float(np.frombuffer(source.take(4), "<f4")[0]) if row["values"] == "step" else None
            rows = shape[0] if len(shape) > 1 else 1
            at = list(range(size)) if dense else positions(source, row["mask"], row["nnz"], rows, size // max(rows, 1))
            array[at] = values(source, {"f32": "<f4", "f16": "<f2"}.get(row["values"], dtype), len(at), dense, step)
        tensors[row["name"]] = array.reshape(shape)
    return {name: tensors[found] if isinstance(found, str) else found for name, found in tensors.items()}, index[
        "config"
    ]
