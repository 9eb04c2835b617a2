"""Tables of word vectors, a row for each word, as they lie in the arena; native/tables.h reads the same.

TABLE         the values, row by row
SPARSE_TABLE  where each row starts among the values (rows + 1 uint32), the columns (uint16, as many as values, filled
              up with zeros to a multiple of 4 bytes), the values
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.matrices import PackedMatrix, Weights, dense
from laconic.runtime.operations import FORMS, WIDTHS
from laconic.runtime.weights import to_csr
from laconic.store import Csr

MOST_COLUMNS = 1 << 16  # of a sparse table: what uint16 can count
SPARSE_UP_TO = 0.5  # density up to which a sparse table takes less than a dense one, and less time
MOST_CODE = 127


def pack_table(weights: Weights, width: str = "FLOAT32", step: float = 0.0) -> PackedMatrix:
    """A table (words, columns), sparse where that is smaller.

    `width` is one of WIDTHS; INT8 is for weights that are whole multiples, of at most 127, of `step`. Others stay
    FLOAT32, since a table is looked up and not multiplied by: its width costs memory, hardly time.
    """
    rows, columns = weights.shape[0], weights.shape[1]
    non_zeros = len(weights.values) if isinstance(weights, Csr) else int(np.count_nonzero(weights))
    width = width if width != "INT8" or _on_steps(weights, step) else "FLOAT32"
    step = step if width == "INT8" else 0.0
    if columns > MOST_COLUMNS or non_zeros > SPARSE_UP_TO * rows * columns:
        data = _encode(dense(weights), width, step)
        return PackedMatrix(rows, columns, "TABLE", width, data, step, non_zeros=non_zeros)
    sparse = to_csr(weights)
    places = sparse.indices.astype("<u2").tobytes()
    places += b"\0" * (-len(places) % 4)
    data = sparse.indptr.astype("<u4").tobytes() + places + _encode(sparse.values, width, step)
    return PackedMatrix(rows, columns, "SPARSE_TABLE", width, data, step, non_zeros=non_zeros)


def unpack_table(row: Any, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The dense table (words, columns) of an entry of a plan's table of matrices and its packed weights."""
    rows, columns, width, step = int(row["rows"]), int(row["columns"]), WIDTHS[int(row["width"])], float(row["step"])
    if FORMS[int(row["form"])] == "TABLE":
        return _decode(data, width, step)[: rows * columns].reshape(rows, columns)
    starts = data[: 4 * (rows + 1)].view("<u4").astype(np.int64)
    count, at = int(starts[-1]), 4 * (rows + 1)
    places = data[at : at + 2 * count].view("<u2")
    values = _decode(data[at + (2 * count + 3) // 4 * 4 :], width, step)[:count]
    table = np.zeros((rows, columns), np.float32)
    table[np.repeat(np.arange(rows), np.diff(starts)), places] = values
    return table


def _on_steps(weights: Weights, step: float) -> bool:
    values = np.asarray(weights.values if isinstance(weights, Csr) else weights)
    if not step:
        return False
    codes = np.rint(values / np.float32(step))
    return bool((np.abs(codes) <= MOST_CODE).all() and (codes * np.float32(step) == values).all())


def _encode(values: NDArray[Any], width: str, step: float) -> bytes:
    values = np.ascontiguousarray(values, "<f4")
    bits: NDArray[np.uint32] = values.view("<u4")
    if width == "INT8":
        codes: NDArray[np.int8] = np.rint(values / np.float32(step)).astype(np.int8)
        return codes.tobytes()
    if width == "BFLOAT16":
        rounded: NDArray[np.uint16] = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")  # ties to even
        return rounded.tobytes()
    return values.tobytes()


def _decode(data: NDArray[np.uint8], width: str, step: float) -> NDArray[np.float32]:
    if width == "INT8":
        return data.view(np.int8).astype(np.float32) * np.float32(step)
    if width == "BFLOAT16":
        whole = data[: len(data) // 2 * 2]
        return (whole.view("<u2").astype("<u4") << 16).view("<f4")
    return np.array(data[: len(data) // 4 * 4].view("<f4"))
