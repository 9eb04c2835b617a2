"""Matrix products in C: the same as numpy's, for all layouts; and hostile matrices, which are refused."""

import numpy as np
import pytest
from laconic.runtime.matrices import pack_matrix, unpack_matrix
from laconic.runtime.operations import FORMS, WIDTHS

from .conftest import Kernels, entry

STEP = 0.03
SHAPES = [(4, 1), (5, 7), (37, 300), (129, 513), (1029, 9)]
COLUMNS = (1, 3, 5, 9, 16, 36, 49, 60, 100)


def matrix(rows: int, columns: int, density: float, width: str, seed: int = 0) -> np.ndarray:
    """Random weights; on the grid of STEP for INT8."""
    random = np.random.default_rng(seed)
    weights = random.standard_normal((rows, columns)).astype(np.float32)
    weights[random.random((rows, columns)) >= density] = 0
    if width == "INT8":
        return (np.rint(weights / STEP).clip(-127, 127) * np.float32(STEP)).astype(np.float32)
    return weights


@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_numpy(kernels: Kernels, form: str, width: str, shape: tuple[int, int]):
    random = np.random.default_rng(1)
    for density in (0.05, 0.4, 1.0):
        data, row = entry(pack_matrix(matrix(*shape, density, width), width, STEP, form=form))
        weights = unpack_matrix(row[0], data)
        assert kernels.sound(data, row)
        for columns in COLUMNS:
            x, y = (random.standard_normal((count, columns)).astype(np.float32) for count in shape[::-1])
            found = kernels.product(data, row, x, y, spare=24 * (columns % 2))
            np.testing.assert_allclose(found, y + weights @ x, rtol=1e-4, atol=1e-4)


def test_products_without_weights_change_nothing(kernels: Kernels):
    data, row = entry(pack_matrix(np.zeros((600, 300), np.float32)))
    y = np.ones((600, 5), np.float32)
    np.testing.assert_array_equal(kernels.product(data, row, np.ones((300, 5), np.float32), y), y)


@pytest.mark.parametrize("form", FORMS[:2])
def test_matrices_of_another_size_than_they_say_are_refused(kernels: Kernels, form: str):
    data, row = entry(pack_matrix(matrix(40, 300, 0.3, "FLOAT32"), form=form))
    for name, change in {"bytes": -4, "rows": -9, "columns": -1, "width": 1}.items():
        other = row.copy()
        other[name] += change
        assert not kernels.sound(data, other), name
    longer = np.concatenate([data, np.zeros(64, np.uint8)])
    row["bytes"] = len(longer)
    assert not kernels.sound(longer, row)


@pytest.mark.parametrize("block", [0, 64, 16385, 0xFFFFFFFF])
def test_blocks_of_another_size_are_refused(kernels: Kernels, block: int):
    data, row = entry(pack_matrix(matrix(40, 300, 0.1, "FLOAT32")))
    row["block"] = block
    assert not kernels.sound(data, row)


@pytest.mark.parametrize(
    ("place", "value"),
    [("columns", 512), ("columns", 2), ("row", 40), ("row", 65535), ("count", 0), ("count", 2**31), ("groups", 0)],
)
def test_a_step_or_a_row_outside_of_the_matrix_is_refused(kernels: Kernels, place: str, value: int):
    data, row = entry(pack_matrix(matrix(40, 128, 0.1, "FLOAT32")))
    groups = int(data.view("<u4")[2])
    if place == "columns":
        data.view("<u2")[(12 + groups * 8) // 2] = value
    elif place == "row":
        data.view("<u2")[6] = value
    else:
        data.view("<u4")[1 if place == "count" else 2] = value
    assert not kernels.sound(data, row)


def test_a_group_with_the_same_row_twice_is_refused(kernels: Kernels):
    data, row = entry(pack_matrix(matrix(40, 128, 0.1, "FLOAT32")))
    halves = data.view("<u2")
    halves[7] = halves[6]
    assert not kernels.sound(data, row)


@pytest.mark.parametrize("width", WIDTHS)
def test_damaged_matrices_are_refused_or_work(kernels: Kernels, width: str):
    random = np.random.default_rng(5)
    sound, row = entry(pack_matrix(matrix(30, 300, 0.1, width), width, STEP))
    x, y = np.ones((300, 5), np.float32), np.zeros((30, 5), np.float32)
    refused = 0
    for _ in range(300):
        data, place = sound.copy(), random.integers(len(sound) // 4)
        data.view("<u4")[place] ^= np.uint32(1) << np.uint32(random.integers(32))
        if kernels.sound(data, row):
            found = kernels.product(data, row, x, y)
            with np.errstate(all="ignore"):
                expected = unpack_matrix(row[0], data) @ x
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
        else:
            refused += 1
    assert 0 < refused < 300
