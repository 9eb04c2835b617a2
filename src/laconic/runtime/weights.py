"""The weights of a packed file as rules see them: dense, or as compressed sparse rows where most are zero.

All functions are pure, take both forms, and keep the form they are given. A matrix is (rows, columns).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from laconic.errors import FormatError
from laconic.runtime.matrices import Weights
from laconic.store import Csr, Packed

DENSE_FROM = 0.5  # share of non-zeros from which the dense form is the smaller one


def read_matrix(packed: Packed, name: str, rows: int, columns: int) -> Weights:
    """A matrix of the file. FormatError where it is missing or of another shape."""
    _check(packed, name, (rows, columns))
    dense = packed.entries[name].non_zeros >= DENSE_FROM * rows * columns
    return packed[name] if dense else packed.csr(name)


def read_vector(packed: Packed, name: str, size: int) -> NDArray[np.float32]:
    """A vector of the file. FormatError where it is missing or of another size."""
    _check(packed, name, (size,))
    return np.asarray(packed[name], np.float32)


def columns_of(weights: Weights, start: int, stop: int) -> Weights:
    """Columns `start` to `stop`."""
    if not isinstance(weights, Csr):
        return weights[:, start:stop]
    wanted = (weights.indices >= start) & (weights.indices < stop)
    return _where(weights, wanted, (weights.shape[0], stop - start), shift=start)


def rows_of(weights: Weights, rows: NDArray[np.intp]) -> Weights:
    """Rows of these numbers, in this order."""
    if not isinstance(weights, Csr):
        return weights[rows]
    lengths = np.diff(weights.indptr)[rows]
    ends = np.cumsum(lengths)
    # place of each wanted entry: the start of its row, and how far it lies behind that
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(weights.indptr[:-1][rows] - (ends - lengths), lengths)
    indptr = np.concatenate([[0], ends]).astype(np.int32)
    return Csr((len(rows), weights.shape[1]), indptr, weights.indices[places], weights.values[places])


def side_by_side(parts: Sequence[Weights]) -> Weights:
    """[first | second | ...], all of as many rows; sparse where one of them is."""
    dense = [part for part in parts if not isinstance(part, Csr)]
    if len(dense) == len(parts):
        return np.concatenate(dense, axis=1)
    sparse = [to_csr(part) for part in parts]
    rows, firsts = sparse[0].shape[0], np.cumsum([0, *(part.shape[1] for part in sparse)])
    row_of = np.concatenate([np.repeat(np.arange(rows), np.diff(part.indptr)) for part in sparse])
    order = np.argsort(row_of, kind="stable")
    pairs = zip(sparse, firsts[:-1], strict=True)
    indices = np.concatenate([part.indices + first for part, first in pairs])[order]
    values = np.concatenate([part.values for part in sparse])[order]
    indptr = np.stack([part.indptr for part in sparse]).sum(axis=0).astype(np.int32)
    return Csr((rows, int(firsts[-1])), indptr, indices.astype(np.int32), values)


def rectified(weights: Weights) -> Weights:
    """max(weights, 0)."""
    if not isinstance(weights, Csr):
        return np.maximum(weights, 0)
    return _where(weights, weights.values > 0, weights.shape)


def to_csr(weights: Weights) -> Csr:
    """The same matrix as compressed sparse rows."""
    if isinstance(weights, Csr):
        return weights
    rows, columns = np.nonzero(weights)
    indptr = np.searchsorted(rows, np.arange(len(weights) + 1)).astype(np.int32)
    return Csr(weights.shape, indptr, columns.astype(np.int32), weights[rows, columns])


def _where(weights: Csr, wanted: NDArray[np.bool_], shape: tuple[int, ...], shift: int = 0) -> Csr:
    """The wanted entries, `shift` columns further left."""
    indptr = np.concatenate([[0], np.cumsum(wanted)])[weights.indptr].astype(np.int32)
    return Csr(shape, indptr, weights.indices[wanted] - np.int32(shift), weights.values[wanted])


def _check(packed: Packed, name: str, shape: tuple[int, ...]) -> None:
    if name not in packed:
        raise FormatError(f"{packed.path}: has no weights {name!r}, which its configuration asks for; pack it again")
    found = packed.entries[name].shape
    if found != shape:
        raise FormatError(
            f"{packed.path}: {name!r} has shape {list(found)}, its configuration asks for {list(shape)}; pack it again"
        )
