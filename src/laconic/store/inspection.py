"""What is in a packed file, tensor by tensor, from its index alone: no value is decoded."""

from dataclasses import asdict, dataclass
from typing import Any

from laconic.store.packed import Packed


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. `bytes` are those in the file, header aside; 0 for a tensor tied to another."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    codec: str
    non_zeros: int
    bytes: int
    tied_to: str | None

    @property
    def bits_per_non_zero(self) -> float | None:
        """None where there is nothing to divide by, or nothing stored."""
        return 8 * self.bytes / self.non_zeros if self.non_zeros and self.tied_to is None else None


@dataclass(frozen=True)
class Inspection:
    """A packed file. Totals count a tied tensor once; `weights` are all stored elements, buffers
    too.
    """

    path: str
    file_bytes: int
    version: int
    weights: int
    non_zeros: int
    tensors: tuple[TensorInfo, ...]
    config: dict[str, Any]
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

    def as_dict(self) -> dict[str, Any]:
        """Everything, derived figures included, as what JSON can hold."""
        derived = {"sparsity": self.sparsity, "dense_bytes": self.dense_bytes, "ratio": self.ratio}
        tensors = [
            asdict(tensor) | {"shape": list(tensor.shape), "bits_per_non_zero": tensor.bits_per_non_zero}
            for tensor in self.tensors
        ]
        return asdict(self) | derived | {"tensors": tensors}


def describe(packed: Packed) -> Inspection:
    """The inspection of an opened file."""
    stored = [entry for entry in packed.entries.values() if entry.tied_to is None]
    return Inspection(
        path=str(packed.path),
        file_bytes=packed.file_bytes,
        version=packed.version,
        weights=sum(entry.size for entry in stored),
        non_zeros=sum(entry.non_zeros for entry in stored),
        tensors=tuple(
            TensorInfo(
                name=entry.name,
                shape=entry.shape,
                dtype=entry.dtype,
                codec=entry.codec,
                non_zeros=entry.non_zeros,
                bytes=packed.stored_bytes(entry.name),
                tied_to=entry.tied_to,
            )
            for entry in packed.entries.values()
        ),
        config=packed.config,
        vocabulary_size=None if packed.vocabulary is None else len(packed.vocabulary),
    )
