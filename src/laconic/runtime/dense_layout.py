"""Dense weights as native/dense.h reads them: rows in tiles of 8, of each tile column by column."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.values import widen

TILE = 8


def pack_dense(matrix: NDArray[Any]) -> bytes:
    """The bytes of a matrix (rows, columns) of values as they are stored."""
    rows, columns = matrix.shape
    if rows % TILE:
        matrix = np.concatenate([matrix, np.zeros((-rows % TILE, columns), matrix.dtype)])
    return matrix.reshape(-1, TILE, columns).transpose(0, 2, 1).tobytes()


def unpack_dense(data: NDArray[np.uint8], rows: int, columns: int, width: str, step: float) -> NDArray[np.float32]:
    """The matrix (rows, columns)."""
    tiles = widen(data, width, step).reshape(-1, columns, TILE)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1).reshape(-1, columns)[:rows])
