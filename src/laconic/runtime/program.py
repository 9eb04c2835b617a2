"""Writing a plan: `Builder` collects buffers, matrices, constants and operations, and lays them out as bytes.

    b = Builder()
    hidden = b.buffer(512, "ROWS", kept=True)
    b.add("step", "LINEAR", x=Place(words), y=Place(gates), matrix=b.matrix(weight, bias), ...)
    plan = b.finish(facts)

Knows layouts, not captioners; native/plan.h is what it writes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.allocation import Life, allocate, table_size
from laconic.runtime.matrices import PackedMatrix, Weights, pack_matrix
from laconic.runtime.operations import (
    ACTIVATIONS,
    FORMS,
    MOST_ARGUMENTS,
    NONE,
    OPERATIONS,
    PROGRAMS,
    SPACES,
    STARTS,
    WIDTHS,
    Place,
    encode_arguments,
)
from laconic.runtime.plan import ALIGNMENT, BUFFER, HEADER, MAGIC, MATRIX, OPERATION, VERSION, Plan, aligned
from laconic.runtime.tables import pack_table
from laconic.runtime.values import Width

PIXEL_BUFFERS = ("x", "y", "scratch")  # arguments of operations that can be tables of pixels
Argument = int | Place | str  # a name stands for its number in ACTIVATIONS or STARTS
UNCODED: dict[Width, str] = {"exact": "FLOAT32", "bfloat16": "BFLOAT16"}  # where values are no codes
_NAMES = {name: number for table in (ACTIVATIONS, STARTS) for number, name in enumerate(table)}


@dataclass
class Builder:
    """A plan in the making. `width` is how the values of matrices lie in it."""

    width: Width = "exact"
    buffers: list[dict[str, int]] = field(default_factory=list)
    matrices: list[dict[str, Any]] = field(default_factory=list)
    programs: dict[str, list[tuple[str, list[int]]]] = field(default_factory=lambda: {name: [] for name in PROGRAMS})
    arena: list[bytes] = field(default_factory=list)
    arena_bytes: int = 0
    named: dict[str, int] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], int]) -> int:
        """What `make` adds and gives the number or place of: the first time that the name is asked for, and not again,
        so that what layers share lies in the plan once."""
        if name not in self.named:
            self.named[name] = make()
        return self.named[name]

    def buffer(self, rows: int, space: str, *, columns: int = 0, kept: bool | range = False) -> int:
        """A new buffer; see plan.h for what a space is, and when to keep. `columns`: of PIXELS; `kept`: of ROWS also
        the rows that the next word reads, where the others are written before they are read."""
        rows_kept = kept if isinstance(kept, range) else range(rows if space == "ROWS" and kept else kept)
        self.buffers.append(
            {
                "rows": rows, "space": SPACES.index(space), "columns": columns, "offset": 0, "kept": len(rows_kept),
                "kept_from": rows_kept.start,
            }
        )  # fmt: skip
        return len(self.buffers) - 1

    def constant(self, values: NDArray[Any] | None) -> int:
        """Numbers in the arena, as float32; NONE for None."""
        return NONE if values is None else self._place(np.ascontiguousarray(values, "<f4").tobytes())

    def matrix(self, weights: Weights, bias: NDArray[Any] | None = None, *, step: float = 0.0) -> int:
        """A matrix (rows, columns) to multiply by; of more dimensions, the first are rows and the others columns.

        `step`: of the grid that its values lie on, 0 for none.
        """
        return self.add_matrix(pack_matrix(weights, UNCODED[self.width], step), bias)

    def table(self, weights: Weights, *, step: float = 0.0) -> int:
        """A table of word vectors (words, columns)."""
        return self.add_matrix(pack_table(weights, UNCODED[self.width], step))

    def add_matrix(self, packed: PackedMatrix, bias: NDArray[Any] | None = None) -> int:
        """A matrix or table that has been packed already."""
        row = {
            "rows": packed.rows, "columns": packed.columns, "form": FORMS.index(packed.form),
            "width": WIDTHS.index(packed.width), "step": packed.step, "bias": self.constant(bias),
            "at": self._place(packed.data), "bytes": len(packed.data), "block": packed.block,
            "non_zeros": packed.non_zeros,
        }  # fmt: skip
        self.matrices.append(row)
        return len(self.matrices) - 1

    def add(self, program: str, operation: str, **arguments: Argument) -> None:
        """Appends an operation to one of PROGRAMS."""
        numbers = {name: _NAMES[value] if isinstance(value, str) else value for name, value in arguments.items()}
        self.programs[program].append((operation, encode_arguments(operation, numbers)))

    def linear(
        self, program: str, x: Place, y: Place, matrix: int, activation: str = "LINEARLY", start: str = "FROM_BIAS",
        image: int = NONE,
    ) -> None:  # fmt: skip
        """LINEAR, with its usual arguments filled in."""
        self.add(program, "LINEAR", x=x, y=y, matrix=matrix, activation=activation, start=start, image=image)

    def embed(self, program: str, y: Place, table: int, *, scale: float = 1.0, positions: int = NONE) -> None:
        """EMBED: rows of a table of words times `scale`, and what the constant `positions` has for their places."""
        number = int(np.float32(scale).view(np.uint32))
        self.add(program, "EMBED", y=y, matrix=table, activation="LINEARLY", scale=number, positions=positions)

    def finish(self, facts: dict[str, Any], words: list[str]) -> Plan:
        """The plan. `facts` are the fields of the header that are not layout; those not given are NONE for buffers."""
        operations = [entry for name in PROGRAMS for entry in self.programs[name]]
        header = np.zeros(1, HEADER)
        header["scratch"] = self._allocate(operations)  # which decides where tables of pixels lie
        for name in ("grid", "pooled", "boxes", "logits"):
            header[name] = NONE
        for name, value in facts.items():
            header[name] = value
        header["magic"], header["version"], header["vocabulary"] = MAGIC, VERSION, facts.get("vocabulary", len(words))
        for name in PROGRAMS:
            header[name] = len(self.programs[name])
        codes = {name: code for code, name in enumerate(OPERATIONS)}
        rows = [
            {"code": codes[name], "arguments": given + [0] * (MOST_ARGUMENTS - len(given))}
            for name, given in operations
        ]
        tables = {
            "buffers": _rows(self.buffers, BUFFER),
            "matrices": _rows(self.matrices, MATRIX),
            "operations": _rows(rows, OPERATION),
        }
        text = "".join(f"{word}\n" for word in words).encode()
        sizes = {name: rows.nbytes for name, rows in tables.items()}
        at = HEADER.itemsize
        for name, size in {**sizes, "arena": self.arena_bytes, "words": len(text)}.items():
            header[f"{name}_at"] = at
            header[name if name in tables else f"{name}_bytes"] = len(tables[name]) if name in tables else size
            at += _rounded(size)
        header["bytes"] = at
        return Plan(_joined([header.tobytes(), *(rows.tobytes() for rows in tables.values()), *self.arena, text], at))

    def _allocate(self, operations: list[tuple[str, list[int]]]) -> int:
        """Sets the places of the tables of pixels; returns how many floats they share."""
        uses: dict[int, list[int]] = {}
        for time, (name, words) in enumerate(operations):
            for argument, word in zip(OPERATIONS[name], words, strict=True):
                if argument in PIXEL_BUFFERS and word != NONE and self.buffers[word]["columns"]:
                    uses.setdefault(word, []).append(time)
        sizes = {which: table_size(self.buffers[which]["rows"], self.buffers[which]["columns"]) for which in uses}
        places, total = allocate([Life(sizes[which], min(times), max(times)) for which, times in uses.items()])
        for which, place in zip(uses, places, strict=True):
            self.buffers[which]["offset"] = place
        return total

    def _place(self, data: bytes) -> int:
        at = self.arena_bytes
        self.arena.append(data)
        self.arena_bytes += _rounded(len(data))
        return at


def _joined(pieces: list[bytes], size: int) -> NDArray[np.uint8]:
    """Pieces that begin at multiples of ALIGNMENT, and zeros between them: `size` bytes in all."""
    data = aligned(size)
    at = 0
    for piece in pieces:
        end = at + len(piece)
        data[at:end] = np.frombuffer(piece, np.uint8)
        at += _rounded(len(piece))
        data[end:at] = 0
    return data


def _rounded(size: int) -> int:
    """Bytes up to the next piece."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _rows(entries: list[dict[str, Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    rows = np.zeros(len(entries), dtype)
    for name in entries[0] if entries else ():
        rows[name] = [entry[name] for entry in entries]
    return rows
