"""Weights to the layouts that the kernels of native/linear.h multiply by, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.operations import FORMS
from laconic.store import Csr

TILE = 8
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


def pack_matrix(weights: Weights, width: str = "FLOAT32") -> PackedMatrix:
    """The layout that is fastest for these weights (rows, columns)."""
    matrix = dense(weights)
    rows, columns = matrix.shape
    padded = np.zeros((-(-rows // TILE) * TILE, columns), "<f4")
    padded[:rows] = matrix
    tiles = padded.reshape(-1, TILE, columns).transpose(0, 2, 1)
    return PackedMatrix(rows, columns, "DENSE", "FLOAT32", tiles.tobytes(), non_zeros=int((matrix != 0).sum()))


def unpack_matrix(row: Any, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The dense matrix of an entry of a plan's table and its packed weights."""
    rows, columns = int(row["rows"]), int(row["columns"])
    assert FORMS[int(row["form"])] == "DENSE"
    tiles = data.view("<f4").reshape(-1, columns, TILE)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1).reshape(-1, columns)[:rows])


def dense(weights: Weights) -> NDArray[np.float32]:
    """The matrix itself; of more dimensions, the first are rows and the others columns."""
    if not isinstance(weights, Csr):
        return np.asarray(weights, np.float32).reshape(len(weights), -1)
    rows = weights.shape[0]
    matrix = np.zeros((rows, int(np.prod(weights.shape[1:]))), np.float32)
    matrix[np.repeat(np.arange(rows), np.diff(weights.indptr)), weights.indices] = weights.values
    return matrix
