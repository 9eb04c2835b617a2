"""Dense weights as native/dense.h reads them: rows in tiles of 8, of each tile column by column."""

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.values import narrow, widen

TILE = 8


def pack_dense(matrix: NDArray[np.float32], width: str, step: float) -> bytes:
    """The bytes of a matrix (rows, columns)."""
    rows, columns = matrix.shape
    padded = np.zeros((-(-rows // TILE) * TILE, columns), np.float32)
    padded[:rows] = matrix
    tiles = padded.reshape(-1, TILE, columns).transpose(0, 2, 1)
    return narrow(tiles, width, step).tobytes()


def unpack_dense(data: NDArray[np.uint8], rows: int, columns: int, width: str, step: float) -> NDArray[np.float32]:
    """The matrix (rows, columns)."""
    tiles = widen(data, width, step).reshape(-1, columns, TILE)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1).reshape(-1, columns)[:rows])
