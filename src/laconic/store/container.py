"""The bytes on disk: a legal safetensors file, written atomically and read with limits.

Knows the safetensors layout and laconic's mark in its metadata; does not know what a tensor, a
codec or a model is. The layout is written here and not by the safetensors library because that
library orders the metadata differently in every process, so equal models would give different
files; the tests open every kind of file with the library as well.
"""

import json
import math
import mmap
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import FormatError
from laconic.files import atomically

FORMAT = "laconic"
VERSION = 1
MAX_HEADER = 4 * 2**20  # bytes; parsing takes up to 24 times as much; 30,000 words need 0.4 MiB
MAX_DIMENSIONS = 8

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_NUMPY_LIMIT = 2**56  # elements, zero sizes counted as one; numpy's own lies a little beyond
_DAMAGED = "the file is damaged: copy it again or pack the model again"


@dataclass(frozen=True)
class Container:
    """An opened file; `parts` are read-only views of it, whose bytes are read when used."""

    path: Path
    size: int  # bytes of the whole file
    metadata: dict[str, str]
    parts: dict[str, NDArray[Any]]

    def damaged(self, reason: object) -> FormatError:
        """The error for content that contradicts itself; `reason` says where and what."""
        return FormatError(f"{self.path}: {reason}; {_DAMAGED}")

    def json(self, key: str) -> Any:
        """The JSON document under metadata `key`, None where the key is absent."""
        if key not in self.metadata:
            return None
        try:
            return _parse_json(self.metadata[key])
        except ValueError as error:
            raise self.damaged(f"metadata {key!r}: {error}") from None


def write(path: Path, parts: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> int:
    """Write `parts` and `metadata` (laconic's mark is added) to `path`; returns the bytes written.

    Equal input gives equal bytes: entries are ordered by falling item size, then by name, which
    also aligns every entry. Raises FormatError when the header passes MAX_HEADER or the file
    cannot be written.
    """
    marked = {"format": FORMAT, "version": str(VERSION), **metadata}
    header: dict[str, object] = {"__metadata__": marked}
    offset = 0
    ordered = sorted(parts.items(), key=lambda item: (-item[1].itemsize, item[0]))
    for name, part in ordered:
        header[name] = {
            "dtype": DTYPE_NAMES[part.dtype],
            "shape": list(part.shape),
            "data_offsets": [offset, offset + part.nbytes],
        }
        offset += part.nbytes
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{path}: a name or word is not valid Unicode ({error.reason})") from None
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise FormatError(
            f"{path}: configuration, vocabulary and tensor names need {len(text):,} bytes, "
            f"the limit is {MAX_HEADER:,}; store less in the configuration"
        )
    data = (part.reshape(-1).view(np.uint8).data for _, part in ordered)
    write_atomically(path, [len(text).to_bytes(8, "little"), text, *data])
    return 8 + len(text) + offset


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` beside `path`, flush them to the disk, rename: all of the file or nothing."""
    try:
        if path.exists() and not path.is_file():
            raise FormatError(f"{path}: not a regular file; give the name of a file to write")
        with atomically(path) as file:
            for chunk in chunks:
                file.write(chunk)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise FormatError(
            f"{path}: cannot be written ({reason}); nothing was changed, check the folder, its "
            "permissions and the free space"
        ) from None


def read(path: Path) -> Container:
    """Open and check everything but the content of the entries.

    Raises FormatError, naming the file and what to do, for whatever is not a complete laconic file
    of a known version. Allocates at most a small multiple of MAX_HEADER, whatever the file claims.
    """
    data = _map(path)
    header = _header(path, data)
    metadata = header.pop("__metadata__", {})
    _check_mark(path, metadata)
    container = Container(path, len(data), metadata, {})
    body = np.frombuffer(data, np.uint8)[8 + int.from_bytes(data[:8], "little") :]
    try:
        container.parts.update(_parts(body, header))
    except ValueError as error:
        raise container.damaged(error) from None
    return container


def _map(path: Path) -> mmap.mmap:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise FormatError(f"{path}: not a regular file; give a file written by laconic.store.save")
        if status.st_size < 10:
            raise FormatError(f"{path}: {status.st_size} bytes are no model; {_DAMAGED}")
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: emptied in between, or a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"{path}: cannot be read ({reason}); check the path") from None


def _header(path: Path, data: mmap.mmap) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{" or length < 2:
        if data[:4] == b"PK\x03\x04" or (data[0] == 0x80 and data[1] in range(2, 6)):
            raise FormatError(
                f"{path}: a PyTorch checkpoint (pickle), which laconic never opens since it can "
                "run code; load it in PyTorch and write it with laconic.store.save"
            )
        raise FormatError(f"{path}: not a safetensors file; give a file written by laconic.store.save")
    if length > len(data) - 8:
        raise FormatError(f"{path}: cut short, its header alone needs {length + 8:,} bytes; {_DAMAGED}")
    if length > MAX_HEADER:
        raise FormatError(f"{path}: header of {length:,} bytes, the limit is {MAX_HEADER:,}; not loaded")
    try:
        header = _parse_json(data[8 : 8 + length].decode())
    except ValueError as error:
        raise FormatError(f"{path}: header: {error}; {_DAMAGED}") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: header is not a JSON object; {_DAMAGED}")
    return header


def _check_mark(path: Path, metadata: Any) -> None:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise FormatError(
            f"{path}: a safetensors file, but not made by laconic; load it with the safetensors "
            "library and write the model with laconic.store.save"
        )
    if not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: metadata holds something that is not text; {_DAMAGED}")
    version = metadata.get("version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10 and int(version) > 0):
        raise FormatError(f"{path}: version {version[:20]!r} is no version number; {_DAMAGED}")
    if int(version) > VERSION:
        raise FormatError(
            f"{path}: format version {version}, made by a newer laconic (this one reads up to "
            f"{VERSION}); upgrade laconic"
        )


def _parts(body: NDArray[np.uint8], header: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Views of `body`, one per header entry; together they must cover it, each byte once."""
    parts: dict[str, NDArray[Any]] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        where = f"entry {name!r:.99}"
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{where} needs dtype, shape and data_offsets and nothing else")
        dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            raise ValueError(f"{where} has an unknown dtype")
        shape, span = parse_shape(where, entry["shape"]), parse_shape(where, entry["data_offsets"])
        if len(span) != 2 or not span[0] <= span[1] <= len(body):
            raise ValueError(f"{where} lies outside the file, which may be cut short")
        if span[1] - span[0] != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{where} has another length than its shape {list(shape)} needs")
        check_size(where, shape, _NUMPY_LIMIT)
        spans.append((*span, name))
        parts[name] = body[span[0] : span[1]].view(dtype).reshape(shape)
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise ValueError(f"entry {name!r:.99} leaves a hole or overlaps another")
        end = stop
    if end != len(body):
        raise ValueError(f"{len(body) - end:,} bytes at the end belong to no entry")
    return parts


def parse_shape(where: str, value: object) -> tuple[int, ...]:
    """`value` as a tuple of non-negative integers below 2**63; ValueError for anything else."""
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        raise ValueError(f"{where}: a shape must be a list of at most {MAX_DIMENSIONS} numbers")
    if not all(type(size) is int and 0 <= size < 2**63 for size in value):
        raise ValueError(f"{where}: a shape or offset must consist of non-negative whole numbers")
    return tuple(value)


def check_size(where: str, shape: tuple[int, ...], limit: int) -> None:
    """ValueError where `shape` has more than `limit` elements, zero sizes counted as one.

    Counting them so bounds every single size as well: numpy refuses (0, 2**62).
    """
    if math.prod(max(size, 1) for size in shape) > max(limit, 1):
        raise ValueError(f"{where} claims {list(shape)} elements, the limit is {limit:,}")


def _parse_json(text: str) -> Any:
    """Strict JSON: ValueError for duplicate keys, NaN, lone surrogates and absurd nesting too."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        if "\\u" in text:  # an escape can smuggle in what no UTF-8 text can hold
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("text is not valid Unicode") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at {error.pos})") from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("JSON has the same key twice")
    return table


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON holds {constant}")
