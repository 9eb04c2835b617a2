"""The table of contents: one entry per tensor, its JSON form, and the limits on what it may claim.

Knows names, shapes and dtypes; does not know how a codec stores them, nor files.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from laconic.store.container import DTYPES, check_size, parse_shape

MAX_WEIGHTS = 2**31  # elements of all tensors together: 8 GiB once decoded


@dataclass(frozen=True)
class Entry:
    """One tensor; `dtype` is what it decodes to, as safetensors spells it: F32 for every float."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    codec: str
    non_zeros: int
    tied_to: str | None = None  # the tensor whose stored bytes this one shares

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype == "F32"

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return DTYPES[self.dtype]

    @property
    def stored_name(self) -> str:
        """The tensor under whose name the bytes lie."""
        return self.tied_to if self.tied_to is not None else self.name


def dump(entries: Iterable[Entry], codecs: Iterable[str]) -> str:
    """The index as JSON. Raises ValueError for what `parse` would refuse."""
    rows: list[dict[str, object]] = []
    for entry in entries:
        if entry.tied_to is not None:
            rows.append({"name": entry.name, "tied_to": entry.tied_to})
        else:
            rows.append(
                {
                    "name": entry.name,
                    "shape": list(entry.shape),
                    "dtype": entry.dtype,
                    "codec": entry.codec,
                    "nnz": entry.non_zeros,
                }
            )
    parse(rows, codecs, MAX_WEIGHTS)
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def parse(rows: object, codecs: Iterable[str], max_weights: int) -> dict[str, Entry]:
    """Entries by name in the order of the file, from the parsed JSON `rows`.

    Raises ValueError, naming the tensor, for unknown or missing keys, wrong types, names given
    twice, ties that do not lead to a stored tensor, and more than `max_weights` elements in all,
    ties included.
    """
    if not isinstance(rows, list):
        raise ValueError("the index of tensors is missing or not a list")
    known = frozenset(codecs)
    entries: dict[str, Entry] = {}
    ties: dict[str, str] = {}
    for row in rows:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str) or name in entries:
            raise ValueError(f"the index names a tensor wrongly or twice: {name!r:.99}")
        if row.keys() == {"name", "tied_to"} and isinstance(row["tied_to"], str):
            ties[name] = row["tied_to"]
            entries[name] = Entry(name, (), "F32", "", 0)  # keeps the order; replaced below
        else:
            entries[name] = _stored(name, row, known, max_weights)
    for name, target in ties.items():
        if target not in entries or target in ties:
            raise ValueError(f"tensor {name!r:.99} is tied to {target!r:.99}, which is not stored")
        entries[name] = replace(entries[target], name=name, tied_to=target)
    total = sum(entry.size for entry in entries.values())
    if total > max_weights:
        raise ValueError(f"the tensors have {total:,} elements, the limit is {max_weights:,}")
    return entries


def _stored(name: str, row: dict[str, Any], codecs: frozenset[str], max_weights: int) -> Entry:
    where = f"tensor {name!r:.99}"
    if row.keys() != {"name", "shape", "dtype", "codec", "nnz"}:
        raise ValueError(f"{where} needs shape, dtype, codec and nnz in the index and nothing else")
    shape = parse_shape(where, row["shape"])
    dtype, codec, non_zeros = row["dtype"], row["codec"], row["nnz"]
    check_size(where, shape, max_weights)
    if not isinstance(dtype, str) or dtype not in DTYPES or dtype == "F16":
        raise ValueError(f"{where} has an unknown dtype in the index")
    if not isinstance(codec, str) or codec not in codecs:
        raise ValueError(f"{where} has the unknown codec {codec!r:.99}")
    if type(non_zeros) is not int or not 0 <= non_zeros <= math.prod(shape):
        raise ValueError(f"{where} cannot have {non_zeros!r:.99} non-zeros")
    return Entry(name, shape, dtype, codec, non_zeros)
