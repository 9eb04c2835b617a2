"""Weights to the layouts that the kernels of native/linear.h multiply by, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.dense_layout import pack_dense, unpack_dense
from laconic.runtime.operations import FORMS, WIDTHS
from laconic.runtime.sparse_layout import GROUP, pack_sparse, unpack_sparse
from laconic.runtime.values import fitting_width
from laconic.store import Csr

FEWEST_COLUMNS, MOST_COLUMNS, STEPS_PER_BLOCK = 128, 1024, 6
Weights = NDArray[Any] | Csr


@dataclass(frozen=True)
class PackedMatrix:
    """A matrix as it lies in the arena; the fields of plan_matrix."""

    rows: int
    columns: int
    form: str
    width: str
    data: bytes
    step: float = 0.0
    block: int = 0
    non_zeros: int = 0


def pack_matrix(weights: Weights, width: str = "FLOAT32", step: float = 0.0, *, form: str = "") -> PackedMatrix:
    """The layout that is fastest for these weights (rows, columns), or that of `form`.

    width: how values lie in it, one of WIDTHS. BFLOAT16 rounds them. INT8 is for weights that are whole multiples of
        `step`; a matrix that has others, or greater ones than 127 steps, becomes FLOAT32.
    """
    csr = weights if isinstance(weights, Csr) else None
    rows, columns = _shape(weights)
    values = csr.values if csr else np.asarray(weights)
    non_zeros = int(np.count_nonzero(values))
    form = form or best_form(rows, columns, non_zeros / max(rows * columns, 1))
    width = fitting_width(values.astype(np.float32, copy=False), width, step)
    step, block = step if width == "INT8" else 0.0, 0
    if form == "SPARSE":
        block = best_block(columns, non_zeros / (rows * columns))
        data = pack_sparse(csr or sparse(weights), columns, block, width, step)
    else:
        data = pack_dense(dense(weights), width, step)
    return PackedMatrix(rows, columns, form, width, data, step, block, non_zeros)


def best_form(rows: int, columns: int, density: float) -> str:
    return "SPARSE" if density <= 0.5 and rows >= GROUP else "DENSE"


def best_block(columns: int, density: float) -> int:
    """Columns of a block: a power of two."""
    block = FEWEST_COLUMNS
    while block < MOST_COLUMNS and block * density < STEPS_PER_BLOCK:
        block *= 2
    return block


def unpack_matrix(row: Any, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The dense matrix of an entry of a plan's table and its packed weights."""
    rows, columns, block = (int(row[name]) for name in ("rows", "columns", "block"))
    form, width, step = FORMS[int(row["form"])], WIDTHS[int(row["width"])], float(row["step"])
    if form == "SPARSE":
        return unpack_sparse(data, rows, columns, block, width, step)
    return unpack_dense(data, rows, columns, width, step)


def dense(weights: Weights) -> NDArray[np.float32]:
    """The matrix itself; of more dimensions, the first are rows and the others columns."""
    if not isinstance(weights, Csr):
        return np.asarray(weights, np.float32).reshape(_shape(weights))
    matrix = np.zeros(_shape(weights), np.float32)
    matrix[np.repeat(np.arange(len(matrix)), np.diff(weights.indptr)), weights.indices] = weights.values
    return matrix


def sparse(weights: NDArray[Any]) -> Csr:
    """The non-zeros of a dense matrix."""
    matrix = np.asarray(weights, np.float32).reshape(_shape(weights))
    places = np.flatnonzero(matrix)
    rows, columns = matrix.shape
    indptr = np.searchsorted(places, np.arange(rows + 1) * columns).astype(np.int32)
    return Csr(matrix.shape, indptr, (places % columns).astype(np.int32), matrix.ravel()[places])


def _shape(weights: Weights) -> tuple[int, int]:
    shape = weights.shape
    return shape[0], int(np.prod(shape[1:]))
