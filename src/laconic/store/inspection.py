"""What is in a packed file, tensor by tensor, what it costs, and what it must cost at least.

The bound of a tensor: log2 of n over k for where its k non-zeros lie among n elements, plus the order-0 entropy of
their values: of the codes of a step, or byte plane by byte plane for f16 and f32. A codec that finds structure
(columns that died together) can pass below it. Checksums, steps, tables and the index are in no bound.
"""

import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from laconic.store import values
from laconic.store.index import STEP, Entry
from laconic.store.masks import entropy_bits, log2_choose
from laconic.store.packed import Packed

COORDINATE = 8  # bytes of one index of a torch COO tensor
GZIP_WEIGHTS = 2**27  # for which gzip takes seconds; a file of 420 bytes can claim 16 times as many


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. `bytes` are those in the file, index aside; 0 for a tensor tied to another.

    `bound_bytes`: see this module; 0 for a tied tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    codec: str
    non_zeros: int
    bytes: int
    bound_bytes: float
    tied_to: str | None

    @property
    def bits_per_non_zero(self) -> float | None:
        """None where there is nothing to divide by, or nothing stored."""
        return 8 * self.bytes / self.non_zeros if self.non_zeros and self.tied_to is None else None


@dataclass(frozen=True)
class Inspection:
    """A packed file. Totals count a tied tensor once; `weights` are all stored elements, buffers
    too.

    `coo_bytes`: every tensor as dense float32 or as PyTorch stores a sparse one (64-bit indices, float32 values),
    whichever is smaller. `gzip_bytes`: the dense float32 tensors one after the other, gzip level 6; None where not
    asked for, or for more than GZIP_WEIGHTS weights.
    """

    path: str
    file_bytes: int
    version: int
    precision: str
    weights: int
    non_zeros: int
    tensors: tuple[TensorInfo, ...]
    coo_bytes: int
    gzip_bytes: int | None
    config: dict[str, Any]
    provenance: dict[str, Any]
    vocabulary_size: int | None

    @property
    def sparsity(self) -> float:
        """Share of zeros among all weights."""
        return 1 - self.non_zeros / self.weights if self.weights else 0.0

    @property
    def dense_bytes(self) -> int:
        """Bytes of all weights as dense float32."""
        return 4 * self.weights

    @property
    def ratio(self) -> float:
        """How many times smaller the whole file is than dense float32."""
        return self.dense_bytes / self.file_bytes

    @property
    def bound_bytes(self) -> float:
        """Sum over the tensors."""
        return sum(tensor.bound_bytes for tensor in self.tensors)

    def as_dict(self) -> dict[str, Any]:
        """Everything, derived figures included, as what JSON can hold."""
        derived = {
            "sparsity": self.sparsity,
            "dense_bytes": self.dense_bytes,
            "bound_bytes": self.bound_bytes,
            "ratio": self.ratio,
        }
        tensors = [
            asdict(tensor) | {"shape": list(tensor.shape), "bits_per_non_zero": tensor.bits_per_non_zero}
            for tensor in self.tensors
        ]
        return asdict(self) | derived | {"tensors": tensors}


def describe(packed: Packed, *, gzip: bool = False) -> Inspection:
    """The inspection of an opened file; every tensor is decoded, sparsely, and so checked."""
    packed.verify()
    stored = [entry for entry in packed.entries.values() if entry.tied_to is None]
    weights = sum(entry.size for entry in stored)
    return Inspection(
        path=str(packed.path),
        file_bytes=packed.file_bytes,
        version=packed.version,
        precision=packed.precision,
        weights=weights,
        non_zeros=sum(entry.non_zeros for entry in stored),
        tensors=tuple(_describe(packed, entry) for entry in packed.entries.values()),
        coo_bytes=sum(_coo_bytes(entry) for entry in stored),
        gzip_bytes=_gzip_bytes(packed, [entry.name for entry in stored]) if gzip and weights <= GZIP_WEIGHTS else None,
        config=packed.config,
        provenance=packed.provenance,
        vocabulary_size=None if packed.vocabulary is None else len(packed.vocabulary),
    )


def bound_bits(values_of: str, size: int, non_zeros: np.ndarray) -> float:
    """The bound of this module for a tensor of `size` elements with these non-zeros, stored as `values_of` names."""
    mask = log2_choose(size, len(non_zeros))
    if values_of == STEP:
        return mask + entropy_bits(non_zeros)
    stored = non_zeros.astype(values.FLOATS.get(values_of, non_zeros.dtype))
    return mask + sum(entropy_bits(plane) for plane in values.planes(stored))


def _describe(packed: Packed, entry: Entry) -> TensorInfo:
    bound = 0.0
    if entry.tied_to is None:
        _, found = packed.sparse(entry.name)
        bound = bound_bits(entry.values, entry.size, found[found != 0])
    return TensorInfo(
        name=entry.name,
        shape=entry.shape,
        dtype=entry.dtype,
        codec=entry.codec,
        non_zeros=entry.non_zeros,
        bytes=packed.stored_bytes(entry.name),
        bound_bytes=bound / 8,
        tied_to=entry.tied_to,
    )


def _coo_bytes(entry: Entry) -> int:
    return min(4 * entry.size, entry.non_zeros * (COORDINATE * max(1, len(entry.shape)) + 4))


def _gzip_bytes(packed: Packed, names: list[str]) -> int:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    total = 0
    for name in names:
        total += len(packer.compress(packed[name].astype(np.float32, copy=False).reshape(-1).data))
    return total + len(packer.flush())
