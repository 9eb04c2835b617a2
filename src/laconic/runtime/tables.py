"""Tables of word vectors, a row for each word."""

import numpy as np

from laconic.runtime.matrices import PackedMatrix, Weights, dense


def pack_table(weights: Weights, width: str = "FLOAT32") -> PackedMatrix:
    matrix = dense(weights)
    rows, columns = matrix.shape
    return PackedMatrix(rows, columns, "TABLE", "FLOAT32", matrix.astype("<f4").tobytes(), non_zeros=int((matrix != 0).sum()))
