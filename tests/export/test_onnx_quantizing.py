"""Weights of 8 bits are exact where they can be, unsigned, and never so few bits that captions change."""

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
graphs = pytest.importorskip("laconic.export.onnx.graphs")
quantizing = pytest.importorskip("laconic.export.onnx.quantizing")


def run(model: Any, given: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.astype(np.float32) for name, value in given.items()})


@pytest.mark.parametrize("levels", [1, 7, 127])
def test_weights_on_a_grid_stay_what_they_are(levels):
    rng = np.random.default_rng(0)
    weights = (rng.integers(-levels, levels + 1, (40, 30)) * np.float32(0.0371)).astype(np.float32)
    codes = quantizing.codes_of(weights, 1)
    assert codes.exact
    assert codes.codes.dtype == np.uint8
    np.testing.assert_allclose((codes.codes - codes.zero.astype(np.float32)) * codes.scale, weights, rtol=1e-6)


def test_other_weights_are_at_most_half_a_step_off_and_zeros_stay():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((40, 30)).astype(np.float32) * (rng.random((40, 30)) > 0.5)
    weights[:, 3], weights[:, 4] = 0, np.abs(weights[:, 4])
    codes = quantizing.codes_of(weights, 1)
    back = (codes.codes - codes.zero.astype(np.float32)) * codes.scale
    assert not codes.exact
    assert codes.scale.shape == (1, 30)
    assert (np.abs(back - weights) <= 0.501 * codes.scale).all()
    assert (back[weights == 0] == 0).all()


def test_kernels_take_as_many_bits_as_they_need():
    """A photo's captions are as sensitive to them as to nothing else."""
    rng = np.random.default_rng(0)
    kernels = {"grid": rng.integers(-7, 8, (64, 32, 1, 1)) * 0.01, "free": rng.standard_normal((64, 64, 1, 1))}
    kernels["huge"] = 1e5 * rng.standard_normal((64, 64, 1, 1))
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        agraph (float[n, 32, 2, 2] x) => (float[n, 64, 2, 2] z) {
            y = Conv (x, grid)
            w = Conv (y, free)
            z = Conv (w, huge)
        }""")
    model.graph.initializer.extend(graphs.constant(name, value.astype(np.float32)) for name, value in kernels.items())
    small = quantizing.stored(model)
    held = {one.name: graphs.array(one).dtype for one in small.graph.initializer}
    assert held == {
        "grid/codes": np.uint8, "grid/scale": np.float32, "grid/zero": np.float32, "free/halves": np.float16,
        "huge": np.float32,
    }  # fmt: skip
    x = {"x": rng.standard_normal((3, 32, 2, 2))}
    (exact,), (found,) = run(model, x), run(small, x)
    np.testing.assert_allclose(found, exact, atol=1e-3 * np.abs(exact).max())


def test_vectors_of_different_sizes_meet_weights_of_different_grids():
    rng = np.random.default_rng(0)
    parts = [rng.integers(-7, 8, (24, 48)) * step for step in (0.03, 0.2)]
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        agraph (float[n, 24] a, float[n, 24] b) => (float[n, 48] y, float[n, 48] z) {
            ab = Concat <axis = -1> (a, b)
            ba = Concat <axis = -1> (b, a)
            y = MatMul (ab, both)
            z = MatMul (ba, both)
        }""")
    model.graph.initializer.append(graphs.constant("both", np.concatenate(parts).astype(np.float32)))
    small = quantizing.computed(model)
    assert sum(graphs.array(one).size for one in small.graph.initializer) < 48 * 48 + 100  # once, and in 8 bits
    given = {"a": 1000 * rng.standard_normal((3, 24)), "b": rng.standard_normal((3, 24))}
    exact, found = run(model, given), run(small, given)
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize(("step", "kind"), [(0.01, np.uint8), (0, np.float16)], ids=["on a grid", "free"])
def test_scores_of_words_are_exact_or_take_sixteen_bits(step, kind):
    rng = np.random.default_rng(0)
    weights = rng.integers(-7, 8, (40, 90)) * step if step else 0.2 * rng.standard_normal((40, 90))
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        agraph (float[n, 40] x) => (float[n, 90] log_probs) {
            scores = MatMul (x, output)
            log_probs = LogSoftmax <axis = -1> (scores)
        }""")
    model.graph.initializer.append(graphs.constant("output", weights.astype(np.float32)))
    small = quantizing.computed(model)
    (matrix,) = (graphs.array(one) for one in small.graph.initializer if len(one.dims) == 2)
    assert matrix.dtype == kind
    x = {"x": rng.standard_normal((3, 40))}
    np.testing.assert_allclose(run(small, x), run(model, x), atol=2e-3)
