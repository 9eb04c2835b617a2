"""Weights to the layouts that the kernels of native/linear.h multiply by, and back.

Which layout is faster depends on the density of the matrix. Time of the dense kernel over that of the sparse one, by
density and number of columns, process CPU time on an AMD EPYC (Zen 3, AVX2); above 1 the sparse one wins:

    matrix, width          columns   0.5    0.6    0.7
    2000 x 1500, float32         5   1.10   0.90   0.84
    2000 x 1500, float32        60   1.50   1.25   1.06
    2000 x 1500, float32       196   1.19   0.97   0.81
    2000 x 1500, bfloat16        5   1.18   0.97   0.80
    2000 x 1500, bfloat16      196   1.24   1.04   0.84
    2000 x 1500, int8            5   1.20   1.03   0.90
    2000 x 1500, int8          196   1.79   1.53   1.30
    512 x 512, float32           5   1.18   0.98   0.88
    512 x 512, float32          60   1.33   1.05   0.93
    512 x 512, float32         196   1.17   0.85   0.77
    144 x 24, float32          196   1.31   1.10   0.96
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.dense_layout import pack_dense, unpack_dense
from laconic.runtime.operations import FORMS, WIDTHS
from laconic.runtime.sparse_layout import GROUP, pack_sparse, unpack_sparse
from laconic.runtime.values import narrow
from laconic.store import Csr

BREAK_EVEN = {"FLOAT32": 0.55, "BFLOAT16": 0.55, "INT8": 0.6}  # density up to which the sparse kernel wins
LEAST_BLOCK, MOST_BLOCK = 128, 1024  # columns
STEPS_PER_BLOCK = 6, 8  # non-zeros of a row that pay for reading and writing its sums: in the least block, in others

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

    width: how values lie in it: FLOAT32, or BFLOAT16, which rounds them.
    step: of the grid that the weights lie on, 0 for none. Where they are whole multiples of it, of at most 127, they
        become INT8, whatever `width` says.
    form: DENSE or SPARSE. ValueError for SPARSE with fewer than 4 rows.
    """
    rows, columns = _shape(weights)
    values = np.asarray(weights.values if isinstance(weights, Csr) else weights, np.float32)
    non_zeros = int(np.count_nonzero(values))
    density = non_zeros / (rows * columns)
    stored, width = narrow(values, width, step)
    step = step if width == "INT8" else 0.0
    narrowed = replace(weights, values=stored) if isinstance(weights, Csr) else stored
    form = form or best_form(rows, density, width)
    if form == "DENSE":
        data = pack_dense(dense(narrowed))
        return PackedMatrix(rows, columns, form, width, data, step, non_zeros=non_zeros)
    if rows < GROUP:
        raise ValueError(f"a sparse matrix has at least {GROUP} rows, not {rows}; make it DENSE")
    block = best_block(density)
    data = pack_sparse(sparse(narrowed), columns, block)
    return PackedMatrix(rows, columns, form, width, data, step, block, non_zeros)


def best_form(rows: int, density: float, width: str) -> str:
    """DENSE or SPARSE, by the measurements above. The same for all numbers of columns: a matrix is packed once."""
    return "SPARSE" if rows >= GROUP and density <= BREAK_EVEN[width] else "DENSE"


def best_block(density: float) -> int:
    """Columns of a block, a power of two: few, so that x stays in the nearest cache, but not too few non-zeros.

    Only the least one fits into a cache of 32 KB with 64 columns of x. Once it is too empty, larger ones cost less:
    a whole Up-Down search at 97.5 % is 6 % faster with blocks of 512 than of 256 for 1 image, and as fast for 12."""
    block, steps = LEAST_BLOCK, STEPS_PER_BLOCK[0]
    while block < MOST_BLOCK and block * density < steps:
        block, steps = 2 * block, STEPS_PER_BLOCK[1]
    return block


def unpack_matrix(row: Any, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The dense matrix of an entry of a plan's table and its packed weights."""
    rows, columns, block = (int(row[name]) for name in ("rows", "columns", "block"))
    form, width, step = FORMS[int(row["form"])], WIDTHS[int(row["width"])], float(row["step"])
    if form == "SPARSE":
        return unpack_sparse(data, rows, columns, block, width, step)
    return unpack_dense(data, rows, columns, width, step)


def dense(weights: Weights) -> NDArray[Any]:
    """The matrix itself; of more dimensions, the first are rows and the others columns."""
    if not isinstance(weights, Csr):
        return weights.reshape(_shape(weights))
    matrix = np.zeros(_shape(weights), weights.values.dtype)
    matrix[np.repeat(np.arange(len(matrix)), np.diff(weights.indptr)), weights.indices] = weights.values
    return matrix


def sparse(weights: Weights) -> Csr:
    """The non-zeros of a matrix."""
    if isinstance(weights, Csr):
        return weights
    matrix = weights.reshape(_shape(weights))
    places = np.flatnonzero(matrix)
    rows, columns = matrix.shape
    indptr = np.searchsorted(places, np.arange(rows + 1) * columns).astype(np.int32)
    return Csr(matrix.shape, indptr, (places % columns).astype(np.int32), matrix.ravel()[places])


def _shape(weights: Weights) -> tuple[int, int]:
    shape = weights.shape
    return int(shape[0]), int(np.prod(shape[1:]))
