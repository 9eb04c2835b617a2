"""Tensors as they arrive: from a pipe or a download, one after the other, without the whole file."""

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from laconic.errors import FormatError
from laconic.store import codecs, container
from laconic.store.codecs import checked
from laconic.store.index import MAX_INDEX, MAX_WEIGHTS, Entry
from laconic.store.packed import check_entries, check_sha256, read_index

PIECE = 1 << 20  # bytes asked for at once, so that a file that claims much and holds little takes little memory


def stream(source: BinaryIO, *, max_weights: int = MAX_WEIGHTS) -> Iterator[tuple[str, NDArray[Any]]]:
    """Names and arrays from `source`, which is only ever read forwards; a tied tensor follows the one it shares.

    Each tensor has passed its own checksum when it is given out; the SHA-256 of the file is known, and checked, only
    behind the last. Raises FormatError for anything but a sound file of version 2.
    """
    name = str(getattr(source, "name", "stream"))
    start = _take(source, 9, name)
    length = container.check_start(name, start, None)
    header, metadata = container.parse_header(name, start[8:] + _take(source, length - 1, name))
    try:
        if metadata["version"] == "1":
            raise ValueError("a file of version 1 cannot be read as a stream")
        end = container.claimed_size(header)
        spans = container.parse_spans(header, end)
        check_entries([(name, dtype, shape) for name, (dtype, shape, _, _) in spans.items()])
        (_, _, _, middle), _ = spans.values()
        if middle > MAX_INDEX:
            raise ValueError(f"the index has more than {MAX_INDEX:,} bytes")
        text = _take(source, middle, name)
        digest = hashlib.sha256(text)
        entries = read_index(text, metadata, end - middle, max_weights).entries
        sharing: dict[str, list[str]] = {}
        for entry in entries.values():
            if entry.tied_to is not None:
                sharing.setdefault(entry.tied_to, []).append(entry.name)
        for entry in (entry for entry in entries.values() if entry.tied_to is None):
            sealed = np.frombuffer(_take(source, entry.bytes, name), np.uint8)
            digest.update(sealed.data)
            yield from _decoded(entry, sealed, sharing.get(entry.name, []))
        check_sha256(digest.hexdigest(), metadata)
    except ValueError as error:
        raise container.damaged(name, error) from None
    if source.read(1):
        raise container.damaged(name, "bytes at the end belong to no entry")


def _decoded(entry: Entry, sealed: NDArray[np.uint8], sharing: list[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    try:
        array = codecs.decode_dense(entry, checked(sealed))
    except ValueError as error:
        raise ValueError(f"tensor {entry.name!r:.99}: {error}") from None
    yield entry.name, array
    yield from ((name, array.copy()) for name in sharing)


def _take(source: BinaryIO, count: int, name: str) -> bytes:
    """Exactly `count` bytes, however few arrive at a time."""
    pieces = bytearray()
    while len(pieces) < count:
        piece = source.read(min(PIECE, count - len(pieces)))
        if not piece:
            raise FormatError(f"{name}: cut short after {len(pieces):,} of {count:,} bytes; get it again")
        pieces += piece
    return bytes(pieces)
