"""Tables of word vectors, a row for each word, as they lie in the arena; native/tables.h reads the same.

TABLE         the values, row by row
SPARSE_TABLE  where each row starts among the values (rows + 1 uint32), the columns (uint16, as many as values, filled
              up with zeros to a multiple of 4 bytes), the values
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.matrices import PackedMatrix, Weights, dense
from laconic.runtime.operations import FORMS, WIDTHS
from laconic.runtime.values import narrow, widen
from laconic.runtime.weights import to_csr
from laconic.store import Csr

MOST_COLUMNS = 1 << 16  # of a sparse table: what uint16 can count
SPARSE_UP_TO = 0.5  # density up to which a sparse table takes less than a dense one, and less time


def pack_table(weights: Weights, width: str = "FLOAT32", step: float = 0.0) -> PackedMatrix:
    """A table (words, columns), sparse where that is smaller; `width` and `step` as in pack_matrix."""
    rows, columns = weights.shape[0], weights.shape[1]
    values = weights.values if isinstance(weights, Csr) else weights
    non_zeros = int(np.count_nonzero(values))
    stored, width = narrow(values, width, step)
    step = step if width == "INT8" else 0.0
    narrowed = replace(weights, values=stored) if isinstance(weights, Csr) else stored
    if columns > MOST_COLUMNS or non_zeros > SPARSE_UP_TO * rows * columns:
        data = dense(narrowed).tobytes()
        return PackedMatrix(rows, columns, "TABLE", width, data, step, non_zeros=non_zeros)
    sparse = to_csr(narrowed)
    places = sparse.indices.astype("<u2").tobytes()
    places += b"\0" * (-len(places) % 4)
    data = sparse.indptr.astype("<u4").tobytes() + places + sparse.values.tobytes()
    return PackedMatrix(rows, columns, "SPARSE_TABLE", width, data, step, non_zeros=non_zeros)


def unpack_table(row: Any, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The dense table (words, columns) of an entry of a plan's table of matrices and its packed weights."""
    rows, columns, width, step = int(row["rows"]), int(row["columns"]), WIDTHS[int(row["width"])], float(row["step"])
    if FORMS[int(row["form"])] == "TABLE":
        return widen(data, width, step).reshape(rows, columns)
    starts = data[: 4 * (rows + 1)].view("<u4").astype(np.int64)
    count, at = int(starts[-1]), 4 * (rows + 1)
    places = data[at : at + 2 * count].view("<u2")
    values = widen(data[at + (2 * count + 3) // 4 * 4 :], width, step)
    table = np.zeros((rows, columns), np.float32)
    table[np.repeat(np.arange(rows), np.diff(starts)), places] = values
    return table
