"""Layouts of weights: packing and unpacking are inverse, and the faster layout is taken."""

import numpy as np
import pytest

from laconic.runtime import matrices
from laconic.runtime.matrices import PackedMatrix, best_block, best_form, dense, pack_matrix, sparse, unpack_matrix
from laconic.runtime.operations import FORMS, WIDTHS
from laconic.runtime.plan import MATRIX
from laconic.store import Csr

SHAPES = [(4, 1), (7, 300), (64, 64), (515, 260), (1030, 33)]


def weights_of(shape: tuple[int, ...], density: float = 0.2) -> np.ndarray:
    random = np.random.default_rng(0)
    values = random.standard_normal(shape).astype(np.float32)
    values[random.random(shape) >= density] = 0
    return values


def unpacked(packed: PackedMatrix) -> np.ndarray:
    row = np.zeros(1, MATRIX)
    for name in ("rows", "columns", "step", "block"):
        row[name] = getattr(packed, name)
    row["form"], row["width"] = FORMS.index(packed.form), WIDTHS.index(packed.width)
    return unpack_matrix(row[0], np.frombuffer(packed.data, np.uint8))


@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
def test_unpacking_gives_back_what_was_packed(form: str, shape: tuple[int, int], density: float):
    weights = weights_of(shape, density)
    for given in (weights, sparse(weights)):
        packed = pack_matrix(given, form=form)
        assert (packed.rows, packed.columns, packed.form, packed.non_zeros) == (*shape, form, np.count_nonzero(weights))
        np.testing.assert_array_equal(unpacked(packed), weights)


@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
def test_bfloat16_rounds_to_the_nearest_and_to_even(form: str):
    weights = weights_of((40, 300))
    np.testing.assert_allclose(unpacked(pack_matrix(weights, "BFLOAT16", form=form)), weights, rtol=2**-8)
    ties = np.float32([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20]).reshape(4, 1)
    expected = np.float32([1, 1 + 4 * 2**-8, -1, 1 + 2 * 2**-8]).reshape(4, 1)
    np.testing.assert_array_equal(unpacked(pack_matrix(ties, "BFLOAT16", form=form)), expected)


@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
def test_int8_keeps_multiples_of_the_step_exactly(form: str):
    step = np.float32(0.0123)
    codes = np.random.default_rng(0).integers(-127, 128, (40, 300)) * (weights_of((40, 300)) != 0)
    weights = codes.astype(np.float32) * step
    packed = pack_matrix(weights, "INT8", float(step), form=form)
    assert packed.width == "INT8"
    np.testing.assert_array_equal(unpacked(packed), weights)


@pytest.mark.parametrize("step", [0.0, 0.5, float("nan"), -1.0])
def test_int8_without_a_step_that_fits_is_float32(step: float):
    weights = np.float32([[1, 2, 0], [3, 0, 63.75], [0, 0, 1], [1, 1, 1]])
    packed = pack_matrix(weights, "INT8", step)
    assert (packed.width, packed.step) == ("FLOAT32", 0.0)
    np.testing.assert_array_equal(unpacked(packed), weights)


def test_int8_with_codes_beyond_127_is_float32():
    assert pack_matrix(np.full((4, 4), 127.0), "INT8", 1.0).width == "INT8"
    assert pack_matrix(np.full((4, 4), 128.0), "INT8", 1.0).width == "FLOAT32"


def test_a_sparse_matrix_is_packed_without_a_dense_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matrices, "dense", None)
    assert pack_matrix(sparse(weights_of((40, 300)))).form == "SPARSE"


def test_sparse_layouts_are_small():
    packed = pack_matrix(weights_of((1000, 1000), 0.05))
    assert len(packed.data) < 1.15 * 6 * packed.non_zeros


def test_the_layout_follows_density():
    assert [best_form(1000, density, "FLOAT32") for density in (0.1, 0.5, 0.6)] == ["SPARSE", "SPARSE", "DENSE"]
    assert best_form(3, 0.1, "FLOAT32") == "DENSE"
    assert [best_block(density) for density in (0.0, 0.009, 0.025, 0.05, 0.5)] == [1024, 1024, 512, 128, 128]
    with pytest.raises(ValueError, match="at least 4 rows"):
        pack_matrix(np.zeros((3, 8)), form="SPARSE")


def test_more_dimensions_are_columns():
    weights = weights_of((6, 5, 3, 3))
    csr = sparse(weights)
    np.testing.assert_array_equal(dense(Csr((6, 5, 3, 3), csr.indptr, csr.indices, csr.values)), weights.reshape(6, 45))
    assert pack_matrix(weights).columns == 45
