"""The kernels of matrix products, compiled for each instruction set that this processor has."""

import ctypes
import platform
import shutil
import subprocess
from ctypes import c_int, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np
import pytest
from laconic.runtime.matrices import PackedMatrix
from laconic.runtime.operations import FORMS, NONE, WIDTHS
from laconic.runtime.plan import MATRIX, aligned

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src/laconic/native"
FLAGS = "-O2 -std=gnu11 -fPIC -shared -ffp-contract=fast -fno-math-errno -Wall -Wextra -Werror -Wno-psabi".split()
X86 = platform.machine().lower() in ("x86_64", "amd64")
# 512-bit vectors are two of 256 where the processor has no others: slow, but the same numbers.
BUILDS = {
    "v2": ["-march=x86-64-v2"],
    "v3": ["-march=x86-64-v3"],
    "512": ["-march=x86-64-v3", "-D__AVX512F__=1"],
} if X86 else {"native": []}  # fmt: skip


class Kernels:
    """`multiply` and `check_matrix` of native/linear.h."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.product.argtypes = [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_uint32]
        self._library.product.restype = None
        self._library.sound.argtypes, self._library.sound.restype = [c_void_p, c_void_p], c_int

    def product(self, data, row, x: np.ndarray, y: np.ndarray, *, spare: int = 0) -> np.ndarray:
        """y + W x, by tables whose rows are `spare` columns further apart than need be; checks that no more is written."""
        columns = x.shape[1]
        stride = -(-columns // 8) * 8 + spare
        tables = [_table(values, stride) for values in (x, y)]
        (x_at, _), (y_at, held) = tables
        around = held.copy()
        self._library.product(_address(data), _address(row), x_at, stride, y_at, stride, columns)
        found = _inside(held, stride, len(y)).copy()
        _inside(around, stride, len(y))[:, : stride - spare] = found[:, : stride - spare]
        np.testing.assert_array_equal(held, around)
        return found[:, :columns]

    def sound(self, data, row) -> bool:
        return bool(self._library.sound(_address(data), _address(row)))


MARGIN = 64  # floats before and behind a table that nobody may write


def _table(values: np.ndarray, stride: int) -> tuple[int, np.ndarray]:
    held = np.full(2 * MARGIN + len(values) * stride, 7.0, np.float32)
    _inside(held, stride, len(values))[:, : values.shape[1]] = values
    return held.ctypes.data + 4 * MARGIN, held


def _inside(held: np.ndarray, stride: int, rows: int) -> np.ndarray:
    return held[MARGIN : MARGIN + rows * stride].reshape(rows, stride)


def _address(array: np.ndarray) -> int:
    return array.ctypes.data


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
    if X86 and request.param != "v2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    output = tmp_path_factory.mktemp("kernels") / f"{request.param}.so"
    flags = [*FLAGS, *BUILDS[request.param], f"-I{SOURCES}"]
    subprocess.run([compiler, *flags, str(HERE / "kernels.c"), "-o", str(output)], check=True)
    return Kernels(output)
