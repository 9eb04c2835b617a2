"""Sine, cosine and logarithm of native/, compiled into a library of their own."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from laconic.native import building

SOURCE = """
#include "logarithm.h"
#include "trigonometry.h"
void sine_cosine(const float *x, float *sine, float *cosine, int count) {
  for (int i = 0; i < count; i += LANES) {
    vec s, c;
    sine_cosine_of(load(x + i), &s, &c);
    store(sine + i, s), store(cosine + i, c);
  }
}
void logarithm(const float *x, float *y, int count) {
  for (int i = 0; i < count; i += LANES) store(y + i, logarithm_of(load(x + i)));
}
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory) -> ctypes.CDLL:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions.c").write_text(SOURCE)
    flags = ["-O2", "-std=gnu11", "-shared", "-fPIC", "-Wno-psabi", f"-I{building.HERE}"]
    subprocess.run(["cc", *flags, folder / "functions.c", "-o", folder / "functions.so"], check=True)
    return ctypes.CDLL(str(folder / "functions.so"))


def sine_cosine(functions, x):
    found = np.zeros((2, len(x)), np.float32)
    functions.sine_cosine(*(ctypes.c_void_p(a.ctypes.data) for a in (x, found[0], found[1])), len(x))
    return found


def test_sine_and_cosine(functions):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-limit, limit, 40_000) for limit in (1, 10, 700, 3000, 12_000)])
    x = np.concatenate([x, np.arange(-4000, 4000) * np.pi / 4]).astype(np.float32)
    exact = np.stack([np.sin(x.astype(np.float64)), np.cos(x.astype(np.float64))])
    assert np.abs(sine_cosine(functions, x) - exact).max() < 2e-7


def test_sine_of_what_is_no_number_is_none(functions):
    x = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e30, 1, 2], np.float32)
    found = sine_cosine(functions, x)
    assert np.isnan(found[:, :3]).all()
    assert found[:, 3].tolist() == [0, 1]


def test_logarithm(functions):
    rng = np.random.default_rng(0)
    x = np.exp(np.concatenate([rng.uniform(-85, 85, 40_000), rng.uniform(-1e-3, 1e-3, 40_000)])).astype(np.float32)
    y = np.zeros_like(x)
    functions.logarithm(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), len(x))
    np.testing.assert_allclose(y, np.log(x.astype(np.float64)), rtol=2.5e-7, atol=1e-12)


def test_logarithm_of_ends(functions):
    x = np.array([1, np.inf, np.nan, 1e-6, 2, 4, 0.5, 1e-3], np.float32)
    y = np.zeros_like(x)
    functions.logarithm(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), len(x))
    assert y[:2].tolist() == [0, np.inf]
    assert np.isnan(y[2])
