"""Masks: every codec gives back every mask; structure pays; contradictions are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.store import integers, masks
from laconic.store.bits import Reader, varint
from laconic.store.masks import MASKS, matrix_shape

MATRICES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def draw(matrix: tuple[int, int], density: float, seed: int, structured: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chance = np.full(matrix, density)
    if structured:
        chance = chance * np.exp(rng.normal(0, 1.5, (matrix[0], 1))) * np.exp(rng.normal(0, 1.5, (1, matrix[1])))
    return np.flatnonzero(rng.random(matrix) < chance).astype(np.int32)


@pytest.mark.parametrize("name", MASKS)
@settings(deadline=None)
@given(MATRICES, st.sampled_from([0.01, 0.1, 0.5, 1.0]), st.integers(0, 2**32), st.booleans())
def test_every_mask_comes_back(name, matrix, density, seed, structured):
    positions = draw(matrix, density, seed, structured)
    if not len(positions):
        return
    data, order = MASKS[name].encode(positions, matrix)
    if name == "classes" and not masks.pays_classes(matrix, len(data)):
        return
    source = Reader(np.frombuffer(data, np.uint8))
    decoded = MASKS[name].decode(source, len(positions), matrix)
    source.finish()
    assert decoded.dtype == np.int32
    assert decoded.tolist() == (positions if order is None else positions[order]).tolist()
    assert sorted(decoded.tolist()) == positions.tolist()


def test_each_codec_has_masks_it_is_best_at_and_is_near_the_bound():
    def sizes(positions: np.ndarray, matrix: tuple[int, int]) -> dict[str, int]:
        return {name: len(codec.encode(positions, matrix)[0]) for name, codec in MASKS.items()}

    matrix = (300, 500)
    for density, best, over in ((0.01, "gaps", 1.015), (0.4, "bitmap", 1.03)):
        positions = draw(matrix, density, 0)
        found = sizes(positions, matrix)
        assert min(found, key=found.get) == best
        assert found[best] < over * masks.log2_choose(300 * 500, len(positions)) / 8 + 20
    found = sizes(draw(matrix, 0.02, 0, structured=True), matrix)
    assert min(found, key=found.get) == "classes"
    assert found["classes"] < 0.85 * found["gaps"]


def test_gaps_are_the_zeros_before_each_non_zero():
    data, _ = MASKS["gaps"].encode(np.array([3, 4, 9], np.int32), (2, 5))
    assert integers.decode(Reader(np.frombuffer(data, np.uint8)), 3).tolist() == [3, 0, 4]


def test_a_bin_is_coded_row_class_by_row_class():
    """Rows 0 and 2 and columns 1 and 3 are dense; the order is that of the specification."""
    mask = np.zeros((4, 4), bool)
    mask[[0, 0, 2, 2, 1, 3], [1, 3, 1, 3, 1, 3]] = True
    bins = masks._Bins(np.array([2, 1, 2, 1], np.uint32), np.array([0, 2, 0, 2], np.uint32))
    assert bins.sums.tolist() == [3, 4]
    assert bins.places.tolist() == [4, 4]
    assert bins.positions(3, np.arange(4, dtype=np.int32)).tolist() == [5, 7, 13, 15]
    assert bins.positions(4, np.array([0, 3], np.int32)).tolist() == [1, 11]


def sequence(*numbers: int) -> bytes:
    return integers.encode(np.array(numbers, np.uint32))


@pytest.mark.parametrize(
    ("name", "data", "count", "matrix", "message"),
    [
        ("gaps", sequence(3, 7), 2, (2, 5), "beyond its 10"),
        ("gaps", sequence(2**32 - 1, 5), 2, (2, 5), "beyond"),
        ("bitmap", sequence(255, 0), 7, (3, 3), "7 non-zeros"),
        ("bitmap", sequence(0, 64), 1, (3, 3), "1 non-zeros"),  # in the filling of the last byte
        ("bitmap", sequence(256, 0), 1, (3, 3), "more than bits"),
        ("classes", sequence(1, 64) + sequence(1, 1), 1, (2, 2), "unknown"),
        ("classes", sequence(1, 1) + sequence(1, 1) + sequence(2), 1, (2, 2), "1 non-zeros"),
        ("classes", sequence(1, 0) + sequence(1, 0) + sequence(2), 2, (2, 2), "2 non-zeros"),
        ("classes", sequence(0, 0) + sequence(1, 0) + sequence() + varint(0), 1, (2, 2), "1 non-zeros"),
        ("classes", sequence(1, 1), 1, (500, 500), "more rows and columns"),
        (
            "classes",
            sequence(1, 1) + sequence(1, 1) + sequence(1) + varint(1) + bytes([0b00000001, 0]),
            1,
            (2, 2),
            "beyond its 4",
        ),
    ],
)
def test_contradictions_are_refused(name, data, count, matrix, message):
    with pytest.raises(ValueError, match=message):
        MASKS[name].decode(Reader(np.frombuffer(data, np.uint8)), count, matrix)


def test_shapes_are_seen_as_matrices():
    assert [matrix_shape(s) for s in ((), (5,), (2, 3), (2, 3, 4, 5), (0, 3))] == [
        (1, 1), (1, 5), (2, 3), (2, 60), (0, 3),
    ]  # fmt: skip
