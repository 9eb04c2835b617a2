"""What differs between two packed files: tensors, masks, values, configuration, vocabulary."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from laconic.store.packed import Packed


@dataclass(frozen=True)
class TensorChange:
    """A tensor of both files that is not the same.

    `gained` and `lost`: positions that are non-zero only in the second or only in the first file.
    `error`: norm of the difference over the norm of the first; None where that is zero. `largest`: the largest
    difference. Both are None, and no positions are compared, where shapes or dtypes differ.
    """

    name: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    gained: int = 0
    lost: int = 0
    error: float | None = None
    largest: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two packed files. `error`: norm of all differences over the norm of all weights of the first file."""

    paths: tuple[str, str]
    precisions: tuple[str, str]  # rows of VALUES
    file_bytes: tuple[int, int]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changed: tuple[TensorChange, ...]
    equal: int
    error: float | None
    config: tuple[str, ...]  # keys, such as "model.decoder.name", with another value
    same_vocabulary: bool

    @property
    def same(self) -> bool:
        """Whether both files hold the same model, however it is packed."""
        return not (self.only_first or self.only_second or self.changed or self.config) and self.same_vocabulary

    def as_dict(self) -> dict[str, Any]:
        """Everything as what JSON can hold."""
        return asdict(self) | {"same": self.same}


def compare(first: Packed, second: Packed) -> Comparison:
    """What differs from `first` to `second`; one pair of tensors in memory at a time."""
    for packed in (first, second):
        packed.verify()
    shared = [name for name in first if name in second]
    changed: list[TensorChange] = []
    difference, norm = 0.0, 0.0
    for name in shared:
        change, squares = _compare(name, first, second)
        changed += [change] if change is not None else []
        difference, norm = difference + squares[0], norm + squares[1]
    return Comparison(
        paths=(str(first.path), str(second.path)),
        precisions=(first.precision, second.precision),
        file_bytes=(first.file_bytes, second.file_bytes),
        only_first=tuple(name for name in first if name not in second),
        only_second=tuple(name for name in second if name not in first),
        changed=tuple(changed),
        equal=len(shared) - len(changed),
        error=math.sqrt(difference / norm) if norm else None,
        config=tuple(_changed_keys("", first.config, second.config)),
        same_vocabulary=first.vocabulary == second.vocabulary,
    )


def _compare(name: str, first: Packed, second: Packed) -> tuple[TensorChange | None, tuple[float, float]]:
    """The change, and the squared norms of difference and first tensor."""
    entries = first.entries[name], second.entries[name]
    shapes, dtypes = (entries[0].shape, entries[1].shape), (entries[0].dtype, entries[1].dtype)
    if shapes[0] != shapes[1] or dtypes[0] != dtypes[1]:
        return TensorChange(name, shapes, dtypes), (0.0, 0.0)
    (places, kept), (others, found) = first.non_zeros(name), second.non_zeros(name)
    union = np.union1d(places, others)  # elsewhere both are zero
    one, two = np.zeros(len(union), kept.dtype), np.zeros(len(union), found.dtype)
    one[np.searchsorted(union, places)], two[np.searchsorted(union, others)] = kept, found
    differs = one != two
    before, after, kept = one[differs].astype(np.float64), two[differs].astype(np.float64), kept.astype(np.float64)
    squares = float(np.dot(after - before, after - before)), float(np.dot(kept, kept))
    if not len(before):
        return None, squares
    change = TensorChange(
        name,
        shapes,
        dtypes,
        gained=int(np.count_nonzero(before == 0)),
        lost=int(np.count_nonzero(after == 0)),
        error=math.sqrt(squares[0] / squares[1]) if squares[1] else None,
        largest=float(np.abs(after - before).max()),
    )
    return change, squares


def _changed_keys(prefix: str, first: Any, second: Any) -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(key for key in second if key not in first)]
        missing = object()
        pairs = [(key, first.get(key, missing), second.get(key, missing)) for key in keys]
        return [found for key, one, two in pairs for found in _changed_keys(f"{prefix}.{key}", one, two)]
    return [] if first == second else [prefix.lstrip(".") or "config"]
