"""Matrix products in C: the same as numpy's, for all layouts; and hostile matrices, which are refused.

The kernels are compiled on their own, for each instruction set that this processor has.
"""

import ctypes
import platform
import shutil
import subprocess
from ctypes import c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np
import pytest

from laconic.runtime.matrices import PackedMatrix, pack_matrix, unpack_matrix
from laconic.runtime.operations import FORMS, NONE, WIDTHS
from laconic.runtime.plan import MATRIX, aligned

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src/laconic/native"
FLAGS = ["-O1", "-std=gnu11", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
# 512-bit vectors are two of 256 where the processor has no others: slow, but the same numbers.
BUILDS = {
    "v2": ["-march=x86-64-v2"],
    "v3": ["-march=x86-64-v3"],
    "512": ["-march=x86-64-v3", "-D__AVX512F__=1"],
} if X86 else {"native": []}  # fmt: skip
STEP = 0.03
SHAPES = [(4, 1), (5, 7), (37, 300), (129, 513), (1029, 9)]
COLUMNS = (1, 3, 5, 9, 16, 36, 49, 60, 100)
MARGIN = 64  # floats before and behind a table that nobody may write


class Kernels:
    """`multiply` and `check_matrix` of native/linear.h."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.product.argtypes = [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_uint32]
        self._library.product.restype = None
        self._library.sound.argtypes, self._library.sound.restype = [c_void_p, c_void_p], c_int

    def product(self, data, row, x: np.ndarray, y: np.ndarray, *, spare: int = 0) -> np.ndarray:
        """y + W x, by tables with `spare` columns more than need be; checks that nothing else is written."""
        columns = x.shape[1]
        stride = -(-columns // 8) * 8 + spare
        given, held = _table(x, stride), _table(y, stride)
        around = held.copy()
        places = [table.ctypes.data + 4 * MARGIN for table in (given, held)]
        self._library.product(data.ctypes.data, row.ctypes.data, places[0], stride, places[1], stride, columns)
        found = _inside(held, stride, len(y)).copy()
        _inside(around, stride, len(y))[:, : stride - spare] = found[:, : stride - spare]
        np.testing.assert_array_equal(held, around)
        return found[:, :columns]

    def sound(self, data, row) -> bool:
        return bool(self._library.sound(data.ctypes.data, row.ctypes.data))


def _table(values: np.ndarray, stride: int) -> np.ndarray:
    held = np.full(2 * MARGIN + len(values) * stride, 7.0, np.float32)
    _inside(held, stride, len(values))[:, : values.shape[1]] = values
    return held


def _inside(held: np.ndarray, stride: int, rows: int) -> np.ndarray:
    return held[MARGIN : MARGIN + rows * stride].reshape(rows, stride)


def entry(packed: PackedMatrix) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a matrix, aligned, and its row of a plan's table."""
    data = aligned(len(packed.data))
    data[:] = np.frombuffer(packed.data, np.uint8)
    row = np.zeros(1, MATRIX)
    for name in ("rows", "columns", "step", "block", "non_zeros"):
        row[name] = getattr(packed, name)
    row["form"], row["width"] = FORMS.index(packed.form), WIDTHS.index(packed.width)
    row["bytes"], row["bias"] = len(packed.data), NONE
    return data, row


@pytest.fixture(scope="session", params=list(BUILDS))
def kernels(request, tmp_path_factory) -> Kernels:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    processor = Path("/proc/cpuinfo")
    if request.param not in ("v2", "native") and not (processor.exists() and "avx2" in processor.read_text()):
        pytest.skip("this processor has no AVX2")
    output = tmp_path_factory.mktemp("kernels") / f"{request.param}.so"
    flags = [*FLAGS, *BUILDS[request.param], f"-I{SOURCES}"]
    subprocess.run([compiler, *flags, str(HERE / "kernels.c"), "-o", str(output)], check=True)
    return Kernels(output)


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


@pytest.mark.parametrize("form", ["DENSE", "SPARSE"])
def test_a_column_comes_out_the_same_whatever_stands_beside_it(kernels: Kernels, form: str):
    data, row = entry(pack_matrix(matrix(129, 513, 0.2, "FLOAT32"), form=form))
    x = np.random.default_rng(1).standard_normal((513, 100)).astype(np.float32)
    y = np.zeros((129, 100), np.float32)
    all_of_them = kernels.product(data, row, x, y)
    for columns in COLUMNS:
        few = kernels.product(data, row, x[:, :columns], y[:, :columns])
        np.testing.assert_array_equal(few, all_of_them[:, :columns])


def test_products_without_weights_change_nothing(kernels: Kernels):
    data, row = entry(pack_matrix(np.zeros((600, 300), np.float32)))
    y = np.ones((600, 5), np.float32)
    np.testing.assert_array_equal(kernels.product(data, row, np.ones((300, 5), np.float32), y), y)


@pytest.mark.parametrize("form", FORMS[:2])
def test_matrices_of_another_size_than_they_say_are_refused(kernels: Kernels, form: str):
    data, row = entry(pack_matrix(matrix(40, 300, 0.3, "FLOAT32"), form=form))
    for name, change in {"bytes": -4, "rows": -9, "columns": -1, "width": 1}.items():
        other = row.copy()
        other[name] = int(row[name][0]) + change
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
