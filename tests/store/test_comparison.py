"""Two files: what changed is found, named and measured."""

import json

import numpy as np
import pytest

from laconic import store


@pytest.fixture
def files(tmp_path):
    def save(name, weights, values="exact", **about):
        store.save(weights, tmp_path / name, values=values, **about)
        return tmp_path / name

    return save


FIRST = {"w": np.array([[3, 0, 0], [0, 4, 0]], np.float32), "b": np.ones(2, np.float32), "n": np.array(3)}


def test_the_same_model_packed_otherwise_is_the_same(files):
    found = store.compare(files("a", FIRST), files("b", dict(reversed(FIRST.items())), "half"))
    assert found.same
    assert (found.equal, found.error, found.changed) == (3, 0.0, ())


def test_every_kind_of_change_is_found(files):
    second = {
        "w": np.array([[3, 0, 12], [0, 0, 0]], np.float32),
        "b": np.ones(3, np.float32),
        "n": np.array(3),
        "more": np.ones(1, np.float32),
    }
    one = files("a", FIRST | {"less": FIRST["b"]}, config={"k": {"l": 1, "m": 2}, "old": 0}, vocabulary=["a"])
    two = files("b", second, config={"k": {"l": 1, "m": 3}}, vocabulary=["b"])
    found = store.compare(one, store.load(two))
    assert not found.same
    assert (found.only_first, found.only_second, found.equal) == (("less",), ("more",), 1)
    change, reshaped = found.changed
    assert (change.name, change.gained, change.lost, change.largest) == ("w", 1, 1, 12)
    assert change.error == pytest.approx(np.sqrt(144 + 16) / 5)
    assert (reshaped.name, reshaped.shapes, reshaped.error) == ("b", ((2,), (3,)), None)
    assert found.config == ("k.m", "old")
    assert not found.same_vocabulary
    assert json.loads(json.dumps(found.as_dict()))["changed"][0]["gained"] == 1


def test_weights_of_nothing_have_no_relative_error(files):
    found = store.compare(files("a", {"w": np.zeros(2, np.float32)}), files("b", {"w": np.ones(2, np.float32)}))
    assert (found.error, found.changed[0].error, found.changed[0].gained) == (None, None, 2)
