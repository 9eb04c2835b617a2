"""The bytes on disk: a legal safetensors file, written atomically and read with limits.

Knows the safetensors layout and laconic's mark in its metadata; does not know what a tensor, a codec or a model is.
The layout is written here and not by the safetensors library because that library orders the metadata differently in
every process, so equal models would give different files; the tests open every kind of file with the library as well.
"""

import json
import math
import mmap
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from laconic.errors import FormatError
from laconic.machine.files import atomically

FORMAT = "laconic"
VERSION = 2
MAX_HEADER = 4 * 2**20  # bytes; parsing takes up to 24 times as much
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

Outline = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]  # name -> dtype and shape of an entry

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
        return damaged(self.path, reason)

    def json(self, key: str) -> Any:
        """The JSON document under metadata `key`, None where the key is absent."""
        if key not in self.metadata:
            return None
        try:
            return parse_json(self.metadata[key])
        except ValueError as error:
            raise self.damaged(f"metadata {key!r}: {error}") from None


def damaged(where: Path | str, reason: object) -> FormatError:
    """The error for content that contradicts itself; `reason` says what."""
    return FormatError(f"{where}: {reason}; {_DAMAGED}")


def write(path: Path, parts: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> int:
    """Write `parts` and `metadata` (laconic's mark is added) to `path`; returns the bytes written.

    Equal input gives equal bytes. Raises FormatError when the header passes MAX_HEADER or the file cannot be written.
    """
    outline = {name: (part.dtype, part.shape) for name, part in parts.items()}
    chunks = (parts[name].reshape(-1).view(np.uint8).data for name in in_order(outline))
    return write_plain(path, outline, chunks, {"format": FORMAT, "version": str(VERSION), **metadata})


def write_plain(path: Path, outline: Outline, chunks: Iterable[memoryview], metadata: Mapping[str, str]) -> int:
    """Write a safetensors file without laconic's mark; `chunks` are the entries' bytes `in_order`, made when due.

    Returns the bytes written; raises FormatError as `write` does.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in in_order(outline):
        dtype, shape = outline[name]
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise FormatError(
            f"{path}: configuration, vocabulary and tensor names need {len(text):,} bytes, the limit is {MAX_HEADER:,}"
        )
    write_atomically(path, chain([len(text).to_bytes(8, "little"), text], chunks))
    return 8 + len(text) + offset


def in_order(outline: Outline) -> list[str]:
    """Names as entries follow each other: by falling item size, which aligns every entry, then by name."""
    return sorted(outline, key=lambda name: (-outline[name][0].itemsize, name))


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
    length = check_start(path, data[:9], len(data))
    header, metadata = parse_header(path, data[8 : 8 + length])
    container = Container(path, len(data), metadata, {})
    body = np.frombuffer(data, np.uint8)[8 + length :]
    try:
        spans = parse_spans(header, len(body))
    except ValueError as error:
        raise container.damaged(error) from None
    for name, (dtype, shape, start, end) in spans.items():
        container.parts[name] = body[start:end].view(dtype).reshape(shape)
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


def check_start(path: Path | str, start: bytes, size: int | None) -> int:
    """Length of the header from the first nine bytes of a file of `size` bytes, or of a stream (None)."""
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{" or length < 2:
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1] in range(2, 6)):
            raise FormatError(
                f"{path}: a PyTorch checkpoint (pickle), which laconic never opens since it can "
                "run code; the SMP authors' checkpoints become packed files by `laconic convert`"
            )
        raise FormatError(f"{path}: not a safetensors file; give a file written by laconic.store.save")
    if size is not None and length > size - 8:
        raise FormatError(f"{path}: cut short, its header alone needs {length + 8:,} bytes; {_DAMAGED}")
    if length > MAX_HEADER:
        raise FormatError(f"{path}: header of {length:,} bytes, the limit is {MAX_HEADER:,}; not loaded")
    return length


def parse_header(path: Path | str, text: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Entries and metadata of a header; the file is laconic's and of a known version."""
    try:
        header = parse_json(text.decode())
    except ValueError as error:
        raise FormatError(f"{path}: header: {error}; {_DAMAGED}") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: header is not a JSON object; {_DAMAGED}")
    metadata = header.pop("__metadata__", {})
    _check_mark(path, metadata)
    return header, metadata


def _check_mark(path: Path | str, metadata: Any) -> None:
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


def parse_spans(header: Mapping[str, Any], size: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]]:
    """Dtype, shape, first and last byte of each entry, in the order of the file; together they cover `size` bytes."""
    spans: dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]] = {}
    for name, entry in header.items():
        where = f"entry {name!r:.99}"
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{where} needs dtype, shape and data_offsets and nothing else")
        dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            raise ValueError(f"{where} has an unknown dtype")
        shape, span = parse_shape(where, entry["shape"]), parse_shape(where, entry["data_offsets"])
        if len(span) != 2 or not span[0] <= span[1] <= size:
            raise ValueError(f"{where} lies outside the file, which may be cut short")
        if span[1] - span[0] != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{where} has another length than its shape {list(shape)} needs")
        check_size(where, shape, _NUMPY_LIMIT)
        spans[name] = dtype, shape, span[0], span[1]
    ordered = dict(sorted(spans.items(), key=lambda item: item[1][2:]))
    end = 0
    for name, (_, _, start, stop) in ordered.items():
        if start != end:
            raise ValueError(f"entry {name!r:.99} leaves a hole or overlaps another")
        end = stop
    if end != size:
        raise ValueError(f"{size - end:,} bytes at the end belong to no entry")
    return ordered


def claimed_size(header: Mapping[str, Any]) -> int:
    """Bytes that the entries of a header lay claim to; what a stream, whose size is unknown, must hold."""
    ends = [entry.get("data_offsets") if isinstance(entry, dict) else None for entry in header.values()]
    return max((parse_shape("an entry", end)[-1] for end in ends if end), default=0)


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


def parse_json(text: str) -> Any:
    """Strict JSON: ValueError for duplicate keys, non-finite numbers, lone surrogates and absurd nesting too."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
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


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON holds {constant}")
