"""One small file for a sparse model: save, load, load_into, inspect.

    container   the bytes: a legal safetensors file, written atomically, read with limits
    index       which tensors there are: names, shapes, ties
    values      float32 -> what is stored of it
    codecs      array <-> its parts in the file; one row per way to store a tensor
    tensors     torch tensors and numpy arrays seen alike
    packed      an opened file as a lazy mapping
    inspection  what is in a file and what it costs

The specification is docs/FORMAT.md. Neither torch nor captions are known here: a model is whatever
has `state_dict`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import ConfigError, FormatError
from laconic.store import container, index
from laconic.store.codecs import CODECS, smallest
from laconic.store.container import DTYPE_NAMES
from laconic.store.index import MAX_WEIGHTS, Entry
from laconic.store.inspection import Inspection, TensorInfo, describe
from laconic.store.packed import Packed
from laconic.store.tensors import find_ties, numpy_from
from laconic.store.values import SOURCES, VALUES, Array
from laconic.store.values import encode as encode_values

__all__ = [
    "VALUES",
    "Inspection",
    "Packed",
    "TensorInfo",
    "check_match",
    "inspect",
    "load",
    "load_into",
    "save",
]

PathLike = str | os.PathLike[str]


def save(
    weights: Any,
    path: PathLike,
    *,
    values: str = "half",
    config: Mapping[str, Any] | None = None,
    vocabulary: list[str] | None = None,
) -> int:
    """Pack `weights` into one file and return its bytes; equal input gives equal bytes.

    weights: anything with `state_dict()`, or a mapping from name to tensor or array of any shape.
        Float tensors are stored in the precision of `values`, integers and booleans as they are;
        tensors that share their memory (same place, shape and strides) are stored once.
    values: a key of VALUES: "half" (float16) or "exact" (float32).
    config, vocabulary: kept beside the weights; `config` must be JSON-able.

    The file appears whole or not at all, and an old one stays until then. Raises ConfigError for
    unknown `values`, FormatError (naming the tensor) for weights that cannot be stored: not
    finite, beyond float16 under "half", complex, float64; and for a path that cannot be written.
    """
    path = Path(path)
    if values not in VALUES:
        raise ConfigError(f"values={values!r} is unknown; choose one of {', '.join(VALUES)}")
    tensors = dict(weights.state_dict() if hasattr(weights, "state_dict") else weights)
    ties = weights.ties if isinstance(weights, Packed) else find_ties(tensors)
    entries: list[Entry] = []
    parts: dict[str, Array] = {}
    for name, tensor in tensors.items():
        try:
            if not isinstance(name, str) or name in ("", "__metadata__"):
                raise ValueError("has a name that no safetensors file can hold; rename it")
            if name in ties:
                entries.append(Entry(name, (), "F32", "", 0, tied_to=ties[name]))
            else:
                entry, encoded = _encode(name, tensor, values, tensors)
                entries.append(entry)
                parts.update(encoded)
        except ValueError as error:
            raise FormatError(f"{path}: not written, tensor {name!r} {error}") from None
    try:
        metadata = {"tensors": index.dump(entries, CODECS), **_texts(config, vocabulary)}
    except ValueError as error:
        raise FormatError(f"{path}: not written, {error}") from None
    return container.write(path, parts, metadata)


def load(path: PathLike, *, max_weights: int = MAX_WEIGHTS) -> Packed:
    """Open a packed file: a mapping from name to array with `config`, `vocabulary` and `version`.

    Header and index are checked now, each tensor when it is decoded. Raises FormatError for
    anything but a sound file of a known version, and for one that claims more than `max_weights`
    elements in all.
    """
    return Packed(path, max_weights=max_weights)


def load_into(source: PathLike | Packed, model: Any) -> None:
    """Put the weights of a packed file into `model`, a torch module of the same structure.

    Works in place and keeps the model's dtype and device. Raises FormatError where names, shapes
    or kinds of number differ (the first few are listed) or the file is damaged; the model is then
    unchanged.
    """
    packed = source if isinstance(source, Packed) else load(source)
    targets: dict[str, Any] = model.state_dict()
    check_match(packed, model)
    arrays = {name: packed[name] for name in targets}  # all decoded before the first is copied
    for name, target in targets.items():
        target.copy_(target.new_tensor(arrays[name]))


def check_match(packed: Packed, model: Any) -> None:
    """FormatError unless the file's names, shapes and kinds of number are those of `model`.

    The model may lie on torch's meta device, so that nothing is allocated for a lying file.
    """
    targets: Mapping[str, Any] = model.state_dict()
    problems = {
        "missing in the file": [repr(name) for name in targets if name not in packed],
        "not in the model": [repr(name) for name in packed if name not in targets],
        "of another shape or kind": [
            f"{name!r} (file: {_sketch(packed.entries[name])}, model: {_sketch(targets[name])})"
            for name in targets
            if name in packed and not _same_kind(packed.entries[name], targets[name])
        ],
    }
    lines = [
        f"{len(found)} {what}: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
        for what, found in problems.items()
        if found
    ]
    if lines:
        raise FormatError(
            f"{packed.path}: the weights do not fit the model; {'; '.join(lines)}; "
            "build the model from the configuration in the file"
        )


def inspect(path: PathLike) -> Inspection:
    """What a packed file holds and what it costs, from its index alone. Raises FormatError."""
    return describe(load(path))


def _encode(name: str, tensor: Any, values: str, names: Mapping[str, Any]) -> tuple[Entry, dict[str, Array]]:
    """Index entry of one tensor, and its parts by their name in the file."""
    array = numpy_from(tensor)
    if array.dtype.kind == "f":
        if array.dtype.name not in SOURCES:
            raise ValueError(f"is {array.dtype.name}; convert it to float32 first")
        dtype, stored = "F32", encode_values(array, values)
        codecs = [key for key, codec in CODECS.items() if _fits(name, codec.suffixes, names)]
    else:
        stored = array.astype(array.dtype.newbyteorder("<"), order="C")
        if stored.dtype not in DTYPE_NAMES:
            raise ValueError(f"is {array.dtype.name}, which the format does not know; convert it to float32")
        dtype, codecs = DTYPE_NAMES[stored.dtype], ["dense"]
    non_zeros = int(np.count_nonzero(stored))
    codec, parts = smallest(stored, non_zeros, codecs)
    entry = Entry(name, array.shape, dtype, codec, non_zeros)
    return entry, {name + suffix: part for suffix, part in parts.items()}


def _fits(name: str, suffixes: tuple[str, ...], names: Mapping[str, Any]) -> bool:
    """Whether no tensor bears the name of a part: "w" stays dense beside a tensor "w.gaps"."""
    return all(suffix == "" or name + suffix not in names for suffix in suffixes)


def _texts(config: Mapping[str, Any] | None, vocabulary: list[str] | None) -> dict[str, str]:
    """Configuration and vocabulary as JSON. ValueError where they are not what JSON can hold."""
    if vocabulary is not None and not all(isinstance(word, str) for word in vocabulary):
        raise ValueError("the vocabulary holds something that is not text")
    options: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
    try:
        texts = {"config": json.dumps(dict(config or {}), allow_nan=False, sort_keys=True, **options)}
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the configuration is not JSON: {error}") from None
    if vocabulary is not None:
        texts["vocabulary"] = json.dumps(vocabulary, **options)
    return texts


def _same_kind(entry: Entry, target: Any) -> bool:
    if not hasattr(target, "copy_") or entry.shape != tuple(target.shape):
        return False
    if entry.is_float:
        return bool(target.is_floating_point())
    return str(target.dtype) == f"torch.{entry.numpy_dtype.name}"


def _sketch(tensor: Any) -> str:
    """Shape and dtype, or the type of what is no tensor (a module's extra state)."""
    if not hasattr(tensor, "shape"):
        return type(tensor).__name__
    return f"{list(tensor.shape)} {tensor.dtype}"
