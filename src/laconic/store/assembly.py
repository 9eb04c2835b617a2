"""Tensors to entries and bytes: each encoded once, one after the other, sealed with its checksum.

Knows neither the file nor the model; what cannot be stored is a ValueError that names the tensor.
"""

from collections.abc import Mapping
from typing import Any

from laconic.store.codecs import encode, seal
from laconic.store.container import DTYPE_NAMES, parse_shape
from laconic.store.index import Entry, tie
from laconic.store.tensors import numpy_from
from laconic.store.values import SOURCES


def assemble(
    tensors: Mapping[str, Any], ties: Mapping[str, str], precision: str, steps: Mapping[str, float]
) -> tuple[dict[str, Entry], list[bytes]]:
    """Entries by name, and the bytes of the stored ones, in the same order.

    `ties`: tensors that share the bytes of another; `steps`: of tensors that lie on the grid of one.
    """
    entries: dict[str, Entry] = {}
    chunks: list[bytes] = []
    start = 0
    for name, tensor in tensors.items():
        try:
            if not isinstance(name, str) or name in ("", "__metadata__"):
                raise ValueError("has a name that no safetensors file can hold; rename it")
            if name in ties:
                entries[name] = tie(entries[ties[name]], name)
                continue
            entries[name], chunk = _stored(name, tensor, precision, steps.get(name), start)
        except ValueError as error:
            raise ValueError(f"tensor {name!r} {error}") from None
        chunks.append(chunk)
        start += len(chunk)
    return entries, chunks


def _stored(name: str, tensor: Any, precision: str, step: float | None, start: int) -> tuple[Entry, bytes]:
    array = numpy_from(tensor)
    parse_shape("it", list(array.shape))
    if array.dtype.kind == "f":
        if array.dtype.name not in SOURCES:
            raise ValueError(f"is {array.dtype.name}; convert it to float32 first")
        dtype = "F32"
    else:
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        if array.dtype not in DTYPE_NAMES:
            raise ValueError(f"is {array.dtype.name}, which the format does not know; convert it to float32")
        dtype = DTYPE_NAMES[array.dtype]
        if step is not None:
            raise ValueError("has a step, but holds whole numbers, which are stored as they are")
    encoded = encode(array, precision, step)
    sealed = seal(encoded.payload)
    shape = tuple(array.shape)
    return Entry(name, shape, dtype, encoded.mask, encoded.values, encoded.non_zeros, len(sealed), start), sealed
