"""exp, log, tanh and sigmoid of the native library, against double precision."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from laconic import native

SOURCE = """
#include "recurrent.h"
#define EACH(name, call) \\
  void name(float *x, int n) { for (int i = 0; i < n; i += LANES) { vec v = load(x + i); store(x + i, call); } }
EACH(exponential, exp_of(v))
EACH(bounded, exp_bounded(v))
EACH(rough, exp_rough(v))
EACH(tangent, tanh_of(v))
EACH(sigmoid, sigmoid_of(v))
double logarithm(double x) { return log_of(x); }
double exponential_of_double(double x) { return exp_double(x); }
"""
EDGES = np.array([0.0, -0.0, 1e-30, -1e-30, 1e-6, 0.19, 0.2, 0.21, -0.2, 0.3466, -0.3466], np.float32)

Function = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module", params=["", "-mavx2 -mfma"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    if request.param and not {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text().split()):
        pytest.skip("the processor has no AVX2")
    folder = tmp_path_factory.mktemp("mathematics")
    (folder / "test.c").write_text(SOURCE)
    flags = ["-O3", "-std=gnu11", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
    include = f"-I{Path(native.__file__).parent}"
    command = ["cc", *flags, *request.param.split(), "-w", "-shared", include, str(folder / "test.c")]
    subprocess.run([*command, "-o", str(folder / "test.so")], check=True)
    return ctypes.CDLL(str(folder / "test.so"))


def function(library: ctypes.CDLL, name: str) -> Function:
    def call(x: np.ndarray) -> np.ndarray:
        padded = np.zeros(-(-len(x) // 8) * 8, np.float32)
        padded[: len(x)] = x
        library[name](ctypes.c_void_p(padded.ctypes.data), ctypes.c_int(len(padded)))
        return padded[: len(x)]

    return call


def spread(limit: float) -> np.ndarray:
    return np.concatenate([EDGES, np.linspace(-limit, limit, 100_001, dtype=np.float32)])


@pytest.mark.parametrize(
    ("name", "limit", "error"), [("exponential", 87.2, 3e-7), ("bounded", 87.0, 3e-7), ("rough", 29.0, 1.5e-6)]
)
def test_exponentials(compiled: ctypes.CDLL, name: str, limit: float, error: float) -> None:
    x = spread(limit)
    np.testing.assert_allclose(function(compiled, name)(x), np.exp(x.astype(np.float64)), rtol=error)
    assert np.isnan(function(compiled, name)(np.array([np.nan], np.float32)))[0]
    assert function(compiled, name)(np.zeros(1, np.float32))[0] == 1.0


def test_exponential_beyond_what_floats_hold(compiled: ctypes.CDLL) -> None:
    found = function(compiled, "exponential")(np.array([-88, -1e30, -np.inf, 88, 1e30, np.inf], np.float32))
    np.testing.assert_allclose(found, [0, 0, 0, *[np.exp(88.0)] * 3], rtol=3e-7)


def test_tanh_and_sigmoid(compiled: ctypes.CDLL) -> None:
    x = np.concatenate([spread(30), np.array([-np.inf, -1e4, 1e4, np.inf], np.float32)])
    wide = x.astype(np.float64)
    np.testing.assert_allclose(function(compiled, "tangent")(x), np.tanh(wide), rtol=1e-6)
    np.testing.assert_allclose(function(compiled, "sigmoid")(x), 0.5 + 0.5 * np.tanh(wide / 2), rtol=4e-7, atol=1e-12)
    for name in ("tangent", "sigmoid"):
        assert np.isnan(function(compiled, name)(np.array([np.nan], np.float32)))[0]


def test_log_and_exp_in_double(compiled: ctypes.CDLL) -> None:
    logarithm, exponential = compiled.logarithm, compiled.exponential_of_double
    for call in (logarithm, exponential):
        call.restype, call.argtypes = ctypes.c_double, [ctypes.c_double]
    for x in [*np.geomspace(1e-310, 1e300, 2001), 1.0, 0.9999999, 1.0000001, 2.0, 500.0]:
        assert logarithm(x) == pytest.approx(np.log(x), rel=2e-15, abs=1e-16)
    for x in np.linspace(-690, 690, 2001):
        assert exponential(x) == pytest.approx(np.exp(x), rel=2e-15)
