"""Files of version 1, read whole and turned into what version 2 would hold of them; nothing writes them any more.

Version 1: a safetensors entry per tensor, the index in the metadata. `dense` tensors lie there as they are, in F32 or
F16; `gaps` ones as values and one byte per gap, 255 standing for 255 zeros.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.store import assembly
from laconic.store.container import Container, check_size, parse_shape
from laconic.store.index import Index

_SKIP = 255


def read(container: Container, max_weights: int) -> tuple[Index, NDArray[np.uint8]]:
    """Index and data of version 2. Raises ValueError for a damaged file."""
    rows, config = container.json("tensors"), container.json("config")
    words = container.json("vocabulary")
    if not isinstance(rows, list) or not isinstance(config, dict):
        raise ValueError("the index of tensors or the configuration is missing")
    if words is not None and not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise ValueError("the vocabulary is not a list of words")
    arrays: dict[str, NDArray[Any]] = {}
    ties: dict[str, str] = {}
    total = 0
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or row["name"] in arrays:
            raise ValueError("the index names a tensor wrongly or twice")
        name = row["name"]
        if "tied_to" in row:
            if not isinstance(row["tied_to"], str) or row["tied_to"] not in arrays or row["tied_to"] in ties:
                raise ValueError(f"tensor {name!r:.99} is tied to one that is not stored")
            ties[name] = row["tied_to"]
            arrays[name] = arrays[ties[name]]
        else:
            where = f"tensor {name!r:.99}"
            shape = parse_shape(where, row.get("shape"))
            check_size(where, shape, max_weights - total)
            arrays[name] = _array(name, row, shape, container.parts)
        total += arrays[name].size
        if total > max_weights:
            raise ValueError(f"the tensors have more than {max_weights:,} elements")
    floats = {array.dtype for array in arrays.values() if array.dtype.kind == "f"}
    precision = "half" if np.dtype("<f2") in floats else "exact"
    entries, chunks = assembly.assemble(arrays, ties, precision, {})
    return Index(entries, precision, config, words), np.frombuffer(b"".join(chunks), np.uint8)


def _array(name: str, row: dict[str, Any], shape: tuple[int, ...], parts: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """One tensor, floats as they lie in the file."""
    where = f"tensor {name!r:.99}"
    try:
        if row["codec"] == "dense":
            array = parts[name]
        else:
            gaps, found = parts[name + ".gaps"], parts[name + ".values"]
            positions = _positions(where, gaps, math.prod(shape))
            if found.shape != positions.shape:
                raise ValueError(f"{where}: does not have as many values as gaps")
            array = np.zeros(shape, found.dtype)
            array.reshape(-1)[positions] = found
        non_zeros = row["nnz"]
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]!r:.99} is missing") from None
    if array.shape != shape or np.count_nonzero(array) != non_zeros:
        raise ValueError(f"{where}: does not have the shape or the non-zeros the index states")
    return array


def _positions(where: str, gaps: NDArray[Any], size: int) -> NDArray[np.int64]:
    if gaps.dtype != np.uint8 or gaps.ndim != 1:
        raise ValueError(f"{where}: gaps are not a row of bytes")
    used = gaps != _SKIP
    ends = np.cumsum(np.add(gaps, used, dtype=np.int64))
    if not 0 <= size - (int(ends[-1]) if ends.size else 0) < _SKIP:
        raise ValueError(f"{where}: gaps do not add up to its {size:,} elements")
    positions: NDArray[np.int64] = ends[used] - 1
    return positions
