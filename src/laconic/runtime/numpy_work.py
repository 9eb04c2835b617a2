"""The tables of one call, as the numpy path sees them: by buffer, and by image where they are kept for each."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.inputs import Inputs
from laconic.runtime.matrices import unpack_matrix
from laconic.runtime.operations import ACTIVATIONS, SPACES, STARTS
from laconic.runtime.plan import Plan

Table = NDArray[np.float32]


@dataclass
class Work:
    """What a program works on just now. `tables` are those of buffers, (rows, columns) by (buffer, image or None)."""

    plan: Plan
    images: int
    image: int = 0
    inputs: Inputs = field(default_factory=Inputs)
    positions: dict[int, int] = field(default_factory=dict)  # of each image, with features
    tables: dict[tuple[int, int | None], Table] = field(default_factory=dict)
    tokens: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    image_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    word: int = 0
    words: dict[int, Table] = field(default_factory=dict)  # (captions, words, rows) of WORDS buffers

    def set_positions(self, count: int) -> None:
        """How many regions the image at work has."""
        self.positions[self.image] = count

    def table(self, buffer: int, row: int = 0, image: int | None = None) -> Table:
        """Rows of a buffer from `row` on, to read and to write; of the image at work, or of another one."""
        b = self.plan.buffers[buffer]
        space = SPACES[int(b["space"])]
        of = (self.image if image is None else image) if space == "POSITIONS" else None
        columns = self._columns(space, int(b["columns"]), of)
        held = self.tables.get((buffer, of))
        if held is None or held.shape[1] != columns:
            held = self.tables[buffer, of] = np.zeros((int(b["rows"]), columns), np.float32)
        return held[row:]

    def matrix(self, number: int) -> tuple[Table, Table | None]:
        """A dense matrix, and its bias."""
        return _matrix(self.plan, number)

    def _columns(self, space: str, pixels: int, image: int | None) -> int:
        positions = self.positions.get(self.image if image is None else image, int(self.plan.header["positions"]))
        counts = {
            "PIXELS": pixels, "POSITIONS": positions, "PAIRS": positions**2, "IMAGES": self.images,
            "ROWS": len(self.tokens),
        }  # fmt: skip
        return counts[space]


def _matrix(plan: Plan, number: int) -> tuple[Table, Table | None]:
    cache: dict[int, Any] = plan.unpacked
    if number not in cache:
        row = plan.matrices[number]
        data = plan.arena[int(row["at"]) : int(row["at"]) + int(row["bytes"])]
        cache[number] = unpack_matrix(row, data), plan.constant(int(row["bias"]), int(row["rows"]))
    found: tuple[Table, Table | None] = cache[number]
    return found


def linear(
    work: Work, x: int, x_row: int, y: int, y_row: int, matrix: int, activation: int, start: int, image: int
) -> None:
    """y = activation(W x + start)."""
    weight, bias = work.matrix(matrix)
    target = work.table(y, y_row)[: len(weight)]
    product = weight @ work.table(x, x_row)[: weight.shape[1]]
    if bias is not None:
        product += bias[:, None]
    if STARTS[start] == "FROM_SELF":
        product += target
    if STARTS[start] == "FROM_IMAGE":
        product += work.table(image)[: len(weight), work.image_of]
    target[:] = activated(product, activation)


def activated(x: Table, activation: int) -> Table:
    """One of ACTIVATIONS."""
    match ACTIVATIONS[activation]:
        case "RELU":
            return np.maximum(x, 0)
        case "RELU6":
            return x.clip(0, 6)
        case "LOG_RELATION":
            return np.log(np.maximum(x, np.float32(1e-6)))
        case _:
            return x
