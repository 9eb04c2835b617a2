"""An opened file as a mapping from name to array, decoded one tensor at a time.

Joins container, index and codecs; does not know modules or torch.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from laconic.store import codecs, container, index, version1
from laconic.store.bits import Reader
from laconic.store.codecs import Csr, checked
from laconic.store.index import MAX_WEIGHTS, STEP, Entry, Index
from laconic.store.masks import Positions

INDEX, DATA = "_index", "data"  # entries of the file, in this order
INDEX_CRC, SHA256 = "index_crc32", "sha256"  # keys of its metadata

PIECE = 1 << 20  # elements that `pieces` makes at a time

T = TypeVar("T")


class Packed(Mapping[str, NDArray[Any]]):
    """The tensors of a packed file, in the order they were saved.

    `packed[name]` decodes that tensor and no other, into a new array of its own: float32 for every float tensor, the
    saved dtype for whole numbers and truth values. Nothing is cached. FormatError where the stored bytes of the
    tensor contradict their checksum or the index. A file of version 1 is read whole and seen as version 2 would
    store it.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_weights: int = MAX_WEIGHTS) -> None:
        self._container = container.read(Path(path))
        try:
            if self.version == 1:
                self._index, self._data = version1.read(self._container, max_weights)
            else:
                parts = self._container.parts
                check_entries([(name, part.dtype, part.shape) for name, part in parts.items()])
                text = parts[INDEX].tobytes()
                self._index = read_index(text, self._container.metadata, parts[DATA].size, max_weights)
                self._data = parts[DATA]
        except ValueError as error:
            raise self._container.damaged(error) from None

    @property
    def path(self) -> Path:
        return self._container.path

    @property
    def file_bytes(self) -> int:
        return self._container.size

    @property
    def version(self) -> int:
        """Version of the format the file is written in."""
        return int(self._container.metadata["version"])

    @property
    def entries(self) -> dict[str, Entry]:
        return self._index.entries

    @property
    def precision(self) -> str:
        """The row of VALUES the file was written with."""
        return self._index.precision

    @property
    def config(self) -> dict[str, Any]:
        return self._index.config

    @property
    def vocabulary(self) -> list[str] | None:
        return self._index.vocabulary

    @property
    def provenance(self) -> dict[str, Any]:
        """What the writer said of where the weights come from."""
        return self._index.provenance

    @property
    def ties(self) -> dict[str, str]:
        """Tied tensors and the stored one each of them shares."""
        tied = self.entries.values()
        return {entry.name: entry.tied_to for entry in tied if entry.tied_to is not None}

    @property
    def steps(self) -> dict[str, float]:
        """Step of each stored tensor that lies on the grid of one: what `save` takes as `steps`."""
        stepped = (e for e in self.entries.values() if e.values == STEP and e.non_zeros and e.tied_to is None)
        return {e.name: self._decode(e.name, lambda e, data: codecs.read_step(e, Reader(data))) for e in stepped}

    def step(self, name: str) -> float:
        """Step of the grid that tensor `name` lies on; 0 where there is none. Read without its checksum."""
        entry = self.entries[name]
        if entry.values != STEP or not entry.non_zeros:
            return 0.0
        try:
            return codecs.read_step(entry, Reader(self._data[entry.start : entry.start + entry.bytes]))
        except ValueError as error:
            raise self._container.damaged(f"tensor {name!r:.99}: {error}") from None

    def stored_bytes(self, name: str) -> int:
        """Bytes tensor `name` takes in the file, its checksum included; 0 for one tied to another."""
        entry = self.entries[name]
        return entry.bytes if entry.tied_to is None else 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._decode(name, codecs.decode_dense)

    def csr(self, name: str) -> Csr:
        """Tensor `name` as compressed sparse rows, made without its dense form. FormatError as for `packed[name]`."""
        return self._decode(name, codecs.decode_csr)

    def sparse(self, name: str) -> tuple[Positions | None, NDArray[Any]]:
        """Row-major positions of the non-zeros of tensor `name`, in no order, and their values.

        Positions None: the values are those of all elements. FormatError as for `packed[name]`.
        """
        return self._decode(name, codecs.decode_sparse)

    def non_zeros(self, name: str) -> tuple[Positions, NDArray[Any]]:
        """Row-major positions of the non-zeros of tensor `name`, rising, and their values. FormatError as above."""
        positions, found = self.sparse(name)
        if positions is None:
            positions = np.flatnonzero(found).astype(np.int32)
            return positions, found[positions]
        order = np.argsort(positions)
        return positions[order], found[order]

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
        """The elements of tensor `name` in their order, some at a time: zeros of a tiny file may claim gigabytes."""
        positions, found = self.non_zeros(name)
        entry = self.entries[name]
        for start in range(0, entry.size, PIECE):
            piece: NDArray[Any] = np.zeros(min(PIECE, entry.size - start), entry.numpy_dtype)
            first, last = np.searchsorted(positions, (start, start + PIECE))
            piece[positions[first:last] - start] = found[first:last]
            yield piece

    def verify(self) -> None:
        """FormatError unless the file has the SHA-256 it states. Reads all of it, decodes nothing."""
        if self.version > 1:
            parts = self._container.parts
            found = hashlib.sha256(parts[INDEX].data)
            found.update(parts[DATA].data)
            try:
                check_sha256(found.hexdigest(), self._container.metadata)
            except ValueError as error:
                raise self._container.damaged(error) from None

    def __contains__(self, name: object) -> bool:  # Mapping's own would decode the tensor
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Packed({str(self.path)!r}, {len(self)} tensors)"

    def _decode(self, name: str, decode: Callable[[Entry, NDArray[np.uint8]], T]) -> T:
        entry = self.entries[name]
        try:
            return decode(entry, checked(self._data[entry.start : entry.start + entry.bytes]))
        except ValueError as error:
            raise self._container.damaged(f"tensor {name!r:.99}: {error}") from None


def metadata_of(text: bytes, data: NDArray[np.uint8]) -> dict[str, str]:
    """Checksums of an index and the data, as the header states them."""
    digest = hashlib.sha256(text)
    digest.update(data.data)
    return {INDEX_CRC: f"{zlib.crc32(text):08x}", SHA256: digest.hexdigest()}


def check_entries(found: list[tuple[str, np.dtype[Any], tuple[int, ...]]]) -> None:
    """ValueError unless these entries, in the order of the file, are an index and the data, as bytes."""
    flat = all(dtype == np.uint8 and len(shape) == 1 for _, dtype, shape in found)
    if [name for name, _, _ in found] != [INDEX, DATA] or not flat:
        raise ValueError(f"needs the entries {INDEX} and {DATA}, of bytes, and nothing else")


def read_index(text: bytes, metadata: Mapping[str, str], size: int, max_weights: int) -> Index:
    """The index of a file whose data has `size` bytes. ValueError for one that is damaged or claims other data."""
    if metadata.get(INDEX_CRC) != f"{zlib.crc32(text):08x}":
        raise ValueError("the index does not have its checksum")
    parsed = index.parse(text, max_weights)
    claimed = sum(entry.bytes for entry in parsed.entries.values() if entry.tied_to is None)
    if claimed != size:
        raise ValueError(f"the tensors of the index take {claimed:,} bytes of data, the file has {size:,}")
    return parsed


def check_sha256(found: str, metadata: Mapping[str, str]) -> None:
    """ValueError unless `found` is what the metadata state."""
    if metadata.get(SHA256) != found:
        raise ValueError("index and data do not have the SHA-256 the file states")
