"""One small file for a sparse model: save, load, stream, load_into, inspect, unpack, compare.

    container   the bytes: a legal safetensors file, written atomically, read with limits
    index       which tensors there are: names, shapes, codecs, ties; configuration and vocabulary
    bits        whole numbers as bits
    integers    sequences of whole numbers: fixed width, Rice, Huffman
    masks       where the non-zeros lie; one row per codec
    values      float32 -> what is stored of it; one row per precision
    codecs      one tensor <-> its bytes, the smallest way; dense or as compressed sparse rows
    assembly    tensors -> entries and bytes
    tensors     torch tensors and numpy arrays seen alike
    packed      an opened file as a lazy mapping
    streaming   tensors from a pipe, one after the other
    inspection  what is in a file, what it costs, and its entropy bound
    comparison  what differs between two files
    version1    files of the first version, read only

The specification is docs/FORMAT.md. Neither torch nor captions are known here: a model is whatever has `state_dict`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import ConfigError, FormatError
from laconic.store import container, index
from laconic.store.assembly import assemble
from laconic.store.codecs import Csr
from laconic.store.comparison import Comparison, TensorChange
from laconic.store.comparison import compare as compare_packed
from laconic.store.index import MAX_WEIGHTS, Entry, Index
from laconic.store.inspection import Inspection, TensorInfo, describe
from laconic.store.packed import DATA, INDEX, Packed, metadata_of
from laconic.store.streaming import stream
from laconic.store.tensors import find_ties
from laconic.store.values import VALUES

__all__ = [
    "VALUES",
    "Comparison",
    "Csr",
    "Inspection",
    "Packed",
    "TensorChange",
    "TensorInfo",
    "check_match",
    "compare",
    "inspect",
    "load",
    "load_into",
    "save",
    "stream",
    "unpack",
]

PathLike = str | os.PathLike[str]


def save(
    weights: Any,
    path: PathLike,
    *,
    values: str = "half",
    steps: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    vocabulary: list[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> int:
    """Pack `weights` into one file and return its bytes; equal input gives equal bytes.

    weights: anything with `state_dict()`, or a mapping from name to tensor or array of any shape. Float tensors are
        stored in the precision of `values`, whole numbers and truth values as they are; tensors that share their
        memory (same place, shape and strides) are stored once.
    values: a row of VALUES. "exact" keeps every bit of float32 but the sign of zero, "half" rounds to float16 all
        but small depthwise kernels. "fine" and "compact" keep multiples of a step per tensor, by plain rounding:
        step = a fixed factor times the root mean square of the tensor's non-zeros; weights that round to zero leave
        the mask. "trained" is for weights that were quantised while they learned: it loses nothing, and is small where
        steps are given.
    steps: for "fine", "compact" and "trained": name of a tensor -> its step, where a quantiser has already put the
        weights on the grid; each must equal float32(code) * float32(step) for a whole number |code| < 2**24, and is
        stored without loss. Tensors not named are rounded plainly; under "trained" they are stored as float16 where
        that loses nothing, else as float32. Under a tie, name the first of the tied tensors. A `Packed` of the same
        precision brings its own steps, so that repacking changes nothing.
    config, vocabulary, provenance: kept beside the weights; JSON-able. `provenance` says where they come from.

    The file appears whole or not at all, and an old one stays until then. Raises ConfigError for unknown `values` and
    for `steps` that fit neither them nor the weights' names; FormatError (naming the tensor) for weights that cannot
    be stored: not finite, beyond float16 under "half", off the grid of their step, complex, float64; and for a path
    that cannot be written.
    """
    path = Path(path)
    if values not in VALUES:
        raise ConfigError(f"values={values!r} is unknown; choose one of {', '.join(VALUES)}")
    if steps is None:
        steps = weights.steps if isinstance(weights, Packed) and weights.precision == values else {}
    tensors = dict(weights.state_dict() if hasattr(weights, "state_dict") else weights)
    ties = weights.ties if isinstance(weights, Packed) else find_ties(tensors)
    _check_steps(steps, values, tensors, ties)
    if isinstance(vocabulary, str) or not all(isinstance(given, Mapping) for given in (config or {}, provenance or {})):
        raise FormatError(f"{path}: not written, configuration and vocabulary must be a mapping and a list")
    words = None if vocabulary is None else list(vocabulary)
    try:
        entries, chunks = assemble(tensors, ties, values, steps)
        text = index.dump(Index(entries, values, dict(config or {}), words, dict(provenance or {})))
    except ValueError as error:
        raise FormatError(f"{path}: not written, {error}") from None
    data = np.frombuffer(b"".join(chunks), np.uint8)
    return container.write(path, {INDEX: np.frombuffer(text, np.uint8), DATA: data}, metadata_of(text, data))


def load(path: PathLike, *, max_weights: int = MAX_WEIGHTS) -> Packed:
    """Open a packed file: a mapping from name to array, with `csr`, `config`, `vocabulary` and more.

    Header and index are checked now, each tensor when it is decoded. Raises FormatError for anything but a sound file
    of a known version, and for one that claims more than `max_weights` elements in all.
    """
    return Packed(path, max_weights=max_weights)


def load_into(source: PathLike | Packed, model: Any) -> None:
    """Put the weights of a packed file into `model`, a torch module of the same structure.

    Works in place and keeps the model's dtype and device. Raises FormatError where names, shapes or kinds of number
    differ (the first few are listed) or the file is damaged; the model is then unchanged.
    """
    packed = source if isinstance(source, Packed) else load(source)
    targets: dict[str, Any] = model.state_dict()
    check_match(packed, model)
    packed.verify()
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


def inspect(path: PathLike, *, gzip: bool = False) -> Inspection:
    """What a packed file holds, what it costs and its entropy bound; all of it is read and checked.

    gzip: compress the dense weights for comparison, too; takes a second per some ten million of them, and is left out
        above inspection.GZIP_WEIGHTS of them, which a tiny file can claim.

    Raises FormatError for a damaged file.
    """
    return describe(load(path), gzip=gzip)


def unpack(source: PathLike | Packed, path: PathLike) -> int:
    """Write an ordinary safetensors file of dense tensors, float32 for all floats; returns its bytes.

    Tied tensors are written out each. Configuration, vocabulary and provenance become JSON texts of the metadata. The
    non-zeros of one tensor are in memory at a time. Raises FormatError for a damaged source and for a path that cannot
    be written.
    """
    packed = source if isinstance(source, Packed) else load(source)
    packed.verify()
    outline = {name: (entry.numpy_dtype, entry.shape) for name, entry in packed.entries.items()}
    texts = {"config": packed.config, "provenance": packed.provenance, "vocabulary": packed.vocabulary}
    metadata = {key: json.dumps(text, ensure_ascii=False) for key, text in texts.items() if text is not None}
    pieces = (piece for name in container.in_order(outline) for piece in packed.pieces(name))
    chunks = (piece.view(np.uint8).data for piece in pieces)
    return container.write_plain(Path(path), outline, chunks, metadata | {"format": "pt"})


def compare(first: PathLike | Packed, second: PathLike | Packed) -> Comparison:
    """What differs between two packed files. Raises FormatError for a damaged one."""
    return compare_packed(*(given if isinstance(given, Packed) else load(given) for given in (first, second)))


def _check_steps(steps: Mapping[str, float], values: str, tensors: Mapping[str, Any], ties: Mapping[str, str]) -> None:
    if steps and not VALUES[values].takes_steps:
        stepped = ", ".join(name for name, row in VALUES.items() if row.takes_steps)
        raise ConfigError(f"steps are given, but values={values!r} has none; choose one of {stepped}")
    for name in steps:
        if name not in tensors:
            raise ConfigError(f"steps names {name!r}, which is no tensor of the model")
        if name in ties:
            raise ConfigError(f"steps names {name!r}, which is tied to {ties[name]!r}; name that one")


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
