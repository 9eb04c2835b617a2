"""An opened file as a mapping from name to array, decoded one tensor at a time.

Joins container, index and codecs; does not know modules or torch.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from laconic.store import container, index
from laconic.store.codecs import CODECS, Parts
from laconic.store.index import MAX_WEIGHTS


class Packed(Mapping[str, NDArray[Any]]):
    """The tensors of a packed file, in the order they were saved.

    `packed[name]` decodes that tensor and no other, into a new array of its own: float32 for every
    float tensor, the saved dtype for integers and booleans. Nothing is cached. FormatError where
    the stored bytes of the tensor contradict the index.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_weights: int = MAX_WEIGHTS) -> None:
        self._container = container.read(Path(path))
        try:
            self.entries = index.parse(self._container.json("tensors"), CODECS, max_weights)
            self._parts = self._claim_parts()
            self.config = self._read_config()
            self.vocabulary = self._read_vocabulary()
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
    def ties(self) -> dict[str, str]:
        """Tied tensors and the stored one each of them shares."""
        tied = self.entries.values()
        return {entry.name: entry.tied_to for entry in tied if entry.tied_to is not None}

    def stored_bytes(self, name: str) -> int:
        """Bytes tensor `name` takes in the file, header aside; 0 for one tied to another."""
        if self.entries[name].tied_to is not None:
            return 0
        return sum(part.nbytes for part in self._parts[name].values())

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self.entries[name]
        try:
            return CODECS[entry.codec].decode(self._parts[entry.stored_name], entry)
        except ValueError as error:
            raise self._container.damaged(f"tensor {name!r:.99}: {error}") from None

    def __contains__(self, name: object) -> bool:  # Mapping's own would decode the tensor
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Packed({str(self.path)!r}, {len(self)} tensors)"

    def _claim_parts(self) -> dict[str, Parts]:
        """Parts of each stored tensor. Every part must be claimed once, every claim be met."""
        free = dict(self._container.parts)
        claimed: dict[str, Parts] = {}
        for name, entry in self.entries.items():
            if entry.tied_to is not None:
                continue
            codec = CODECS[entry.codec]
            try:
                claimed[name] = {suffix: free.pop(name + suffix) for suffix in codec.suffixes}
                codec.check(claimed[name], entry)
            except KeyError as error:
                raise ValueError(f"entry {error.args[0]!r:.99} is missing or used twice") from None
            except ValueError as error:
                raise ValueError(f"tensor {name!r:.99}: {error}") from None
        if free:
            raise ValueError(f"entry {min(free)!r:.99} belongs to no tensor of the index")
        return claimed

    def _read_config(self) -> dict[str, Any]:
        config = self._container.json("config")
        if not isinstance(config, dict):
            raise ValueError("the model configuration is missing or not a JSON object")
        return config

    def _read_vocabulary(self) -> list[str] | None:
        words = self._container.json("vocabulary")
        if words is None or (isinstance(words, list) and all(isinstance(w, str) for w in words)):
            return words
        raise ValueError("the vocabulary is not a list of words")
