"""Files of version 1 that lie: ValueError and nothing else; sound ones are in test_golden."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from laconic.store import version1

SPARSE = {"name": "a", "shape": [4], "codec": "gaps", "nnz": 1}
PARTS = {"a.gaps": np.array([1], np.uint8), "a.values": np.ones(1, np.float32)}


def read(rows: Any, parts: dict[str, Any]) -> None:
    documents = {"tensors": rows, "config": {}, "vocabulary": None}
    version1.read(SimpleNamespace(json=documents.get, parts=parts), 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "parts", "says"),
    [
        ([{"name": "b", "tied_to": []}], {}, "tied to one that is not stored"),
        ([{"name": "b", "tied_to": {}}], {}, "tied to one that is not stored"),
        ([{"name": "b", "tied_to": "a"}], {}, "tied to one that is not stored"),
        ([{"name": []}], {}, "names a tensor wrongly"),
        ([SPARSE], PARTS | {"a.gaps": np.ones((2, 2), np.uint8)}, "not a row of bytes"),
        ([SPARSE], PARTS | {"a.gaps": np.array(2, np.uint8)}, "not a row of bytes"),
        ([SPARSE], PARTS | {"a.gaps": np.ones(2, np.int8)}, "not a row of bytes"),
        ([SPARSE], PARTS | {"a.gaps": np.full(9, 9, np.uint8)}, "do not add up to its 4 elements"),
        ([SPARSE], PARTS | {"a.values": np.ones((1, 1), np.float32)}, "as many values as gaps"),
        ([SPARSE], {"a.gaps": PARTS["a.gaps"]}, "'a.values' is missing"),
        ([SPARSE | {"nnz": 2}], PARTS, "the non-zeros the index states"),
        ([SPARSE | {"shape": [10**9]}], PARTS, "the limit is"),
    ],
)
def test_damaged_indexes_are_refused(rows, parts, says):
    with pytest.raises(ValueError, match=says):
        read(rows, parts)


def test_the_sound_one_is_read():
    read([SPARSE, {"name": "b", "tied_to": "a"}], PARTS)
