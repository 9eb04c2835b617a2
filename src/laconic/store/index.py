"""The table of contents: one entry per tensor, what is said of the model, its JSON form, and limits on its claims.

Knows names, shapes, dtypes and names of codecs; does not know how a codec stores a tensor, nor files.
"""

import json
import math
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from laconic.store.bits import LARGEST
from laconic.store.container import DTYPES, check_size, parse_json, parse_shape
from laconic.store.masks import MASKS
from laconic.store.values import FLOATS, VALUES

MAX_WEIGHTS = 2**31  # elements of all tensors together: 8 GiB once decoded
MAX_INDEX = 4 * 2**20  # bytes of JSON; parsing takes up to 24 times as much; 30,000 words need 0.4 MiB
CHECKSUM = 4  # bytes behind a tensor's own

DENSE, STEP, RAW = "dense", "step", "raw"


@dataclass(frozen=True)
class Entry:
    """One tensor; `dtype` is what it decodes to, as safetensors spells it: F32 for every float.

    `mask` and `values` name its codecs, `bytes` are those it takes among the data, from `start` on.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    mask: str
    values: str
    non_zeros: int
    bytes: int
    start: int = 0
    tied_to: str | None = None  # the tensor whose stored bytes this one shares

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype == "F32"

    @property
    def codec(self) -> str:
        return f"{self.mask} {self.values}"

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return DTYPES[self.dtype]


@dataclass(frozen=True)
class Index:
    """Entries by name in the order of the model, and what the writer said of the model."""

    entries: dict[str, Entry]
    precision: str  # a row of VALUES: what the writer was asked for
    config: dict[str, Any] = field(default_factory=dict)
    vocabulary: list[str] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def tie(entry: Entry, name: str) -> Entry:
    """`name` as a tensor tied to that of `entry`."""
    return replace(entry, name=name, tied_to=entry.name)


def dump(index: Index) -> bytes:
    """The index as compressed JSON. Raises ValueError for what `parse` would refuse."""
    document: dict[str, Any] = {"config": index.config, "precision": index.precision, "provenance": index.provenance}
    _check_json("configuration", index.config)
    _check_json("provenance", index.provenance)
    if index.vocabulary is not None:
        document["vocabulary"] = index.vocabulary
    document["tensors"] = [_row(entry) for entry in index.entries.values()]
    try:
        text = _json(document).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a name or word is not valid Unicode ({error.reason})") from None
    if len(text) > MAX_INDEX:
        raise ValueError(
            f"configuration, vocabulary and tensor names need {len(text):,} bytes, the limit is {MAX_INDEX:,}; "
            "store less in the configuration"
        )
    data = zlib.compress(text, 9)
    parse(data, MAX_WEIGHTS)
    return data


def _row(entry: Entry) -> dict[str, object]:
    if entry.tied_to is not None:
        return {"name": entry.name, "tied_to": entry.tied_to}
    return {
        "name": entry.name,
        "shape": list(entry.shape),
        "dtype": entry.dtype,
        "mask": entry.mask,
        "values": entry.values,
        "nnz": entry.non_zeros,
        "bytes": entry.bytes,
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _check_json(what: str, value: object) -> None:
    try:
        _json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the {what} is not JSON: {error}") from None


def parse(data: bytes, max_weights: int) -> Index:
    """The index that `dump` wrote. Raises ValueError, naming the tensor, for anything else.

    Such as unknown or missing keys, wrong types, names given twice, ties that do not lead to a stored tensor, and
    more than `max_weights` elements in all, ties included.
    """
    document = _document(data)
    if not isinstance(document, dict) or document.keys() - {"vocabulary"} != _KEYS:
        raise ValueError(f"the index needs {', '.join(sorted(_KEYS))} and nothing but a vocabulary beside")
    for key in ("config", "provenance"):
        if not isinstance(document[key], dict):
            raise ValueError(f"the {key} in the index is not a JSON object")
    words = document.get("vocabulary")
    if "vocabulary" in document and not (isinstance(words, list) and all(isinstance(w, str) for w in words)):
        raise ValueError("the vocabulary is not a list of words")
    if not isinstance(document["precision"], str) or document["precision"] not in VALUES:
        raise ValueError("the precision of the values is unknown")
    entries = _entries(document["tensors"], max_weights)
    return Index(entries, document["precision"], document["config"], words, document["provenance"])


_KEYS = {"config", "precision", "provenance", "tensors"}


def _document(data: bytes) -> Any:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, MAX_INDEX + 1)
    except zlib.error as error:
        raise ValueError(f"the index is damaged ({error})") from None
    if len(text) > MAX_INDEX:
        raise ValueError(f"the index has more than {MAX_INDEX:,} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("the index is damaged (it ends too early or too late)")
    try:
        return parse_json(text.decode())
    except ValueError as error:
        raise ValueError(f"the index is {error}") from None


def _entries(rows: object, max_weights: int) -> dict[str, Entry]:
    if not isinstance(rows, list):
        raise ValueError("the tensors of the index are not a list")
    entries: dict[str, Entry] = {}
    ties: dict[str, str] = {}
    start = 0
    for row in rows:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str) or name in ("", "__metadata__") or name in entries:
            raise ValueError(f"the index names a tensor wrongly or twice: {name!r:.99}")
        if row.keys() == {"name", "tied_to"} and isinstance(row["tied_to"], str):
            ties[name] = row["tied_to"]
            entries[name] = Entry(name, (), "F32", "", "", 0, 0)  # keeps the order; replaced below
        else:
            entries[name] = _stored(name, row, start, max_weights)
            start += entries[name].bytes
    for name, target in ties.items():
        if target not in entries or target in ties:
            raise ValueError(f"tensor {name!r:.99} is tied to {target!r:.99}, which is not stored")
        entries[name] = tie(entries[target], name)
    total = sum(entry.size for entry in entries.values())
    if total > max_weights:
        raise ValueError(f"the tensors have {total:,} elements, the limit is {max_weights:,}")
    return entries


def _stored(name: str, row: dict[str, Any], start: int, max_weights: int) -> Entry:
    where = f"tensor {name!r:.99}"
    if row.keys() != {"name", "shape", "dtype", "mask", "values", "nnz", "bytes"}:
        raise ValueError(f"{where} needs shape, dtype, mask, values, nnz and bytes in the index and nothing else")
    shape = parse_shape(where, row["shape"])
    dtype, mask, values, non_zeros, size = (row[key] for key in ("dtype", "mask", "values", "nnz", "bytes"))
    check_size(where, shape, min(max_weights, LARGEST))
    if not isinstance(dtype, str) or dtype not in DTYPES or dtype == "F16":
        raise ValueError(f"{where} has an unknown dtype in the index")
    masks, ways = ({DENSE, *MASKS}, {STEP, *FLOATS}) if dtype == "F32" else ({DENSE}, {RAW})
    if not isinstance(mask, str) or mask not in masks or not isinstance(values, str) or values not in ways:
        raise ValueError(f"{where} has the unknown codec {mask!r:.99} {values!r:.99}")
    if type(non_zeros) is not int or not 0 <= non_zeros <= math.prod(shape):
        raise ValueError(f"{where} cannot have {non_zeros!r:.99} non-zeros")
    if type(size) is not int or not CHECKSUM <= size < 2**63:
        raise ValueError(f"{where} cannot have {size!r:.99} bytes")
    return Entry(name, shape, dtype, mask, values, non_zeros, size, start)
