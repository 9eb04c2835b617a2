"""Tables of word vectors: what is packed comes back, in numpy and in the native library."""

import numpy as np
import pytest

from laconic.decode.search import Decoding
from laconic.errors import FormatError
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import FORMS, NONE, WIDTHS, Place
from laconic.runtime.plan import Plan
from laconic.runtime.program import Builder
from laconic.runtime.tables import pack_table, unpack_table
from laconic.runtime.weights import columns_of, rectified, rows_of, side_by_side, to_csr

native = pytest.mark.skipif(library() is None, reason="there is no compiled library")

WORDS, STEP = 37, 0.03


def table_of(density: float, width: str, columns: int = WORDS) -> np.ndarray:
    """Random, of values that the width can hold."""
    random = np.random.default_rng(int(100 * density))
    codes = random.integers(-127, 128, size=(WORDS, columns)) * (random.random((WORDS, columns)) < density)
    if width == "INT8":
        return codes.astype(np.float32) * np.float32(STEP)
    values = codes.astype(np.float32) * 0.0625  # seven bits and a power of two: exact in bfloat16
    return values if width == "BFLOAT16" else values + np.float32(0.001) * (values != 0)


def unpacked(packed: object) -> np.ndarray:
    row = {name: getattr(packed, name) for name in ("rows", "columns", "step")}
    row |= {"form": FORMS.index(packed.form), "width": WIDTHS.index(packed.width)}  # type: ignore[attr-defined]
    return unpack_table(row, np.frombuffer(packed.data, np.uint8))  # type: ignore[attr-defined]


def plan_of(table: np.ndarray, width: str, activation: str, scale: float, positions: np.ndarray | None) -> Plan:
    """A captioner whose logits are the vector of the last word."""
    builder = Builder()
    grid, step = builder.buffer(1, "POSITIONS"), builder.buffer(table.shape[1], "ROWS")
    builder.add(
        "step", "EMBED", y=Place(step), matrix=builder.add_matrix(pack_table(table, width, STEP)),
        activation=activation, scale=int(np.float32(scale).view(np.uint32)), positions=builder.constant(positions),
    )  # fmt: skip
    facts = {"grid": grid, "channels": 1, "positions": 4, "logits": step, "pad": 0, "unk": 1, "bos": 2, "eos": 3}
    return builder.finish(facts, [f"w{i}" for i in range(table.shape[1])])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("density", "form"), [(1.0, "TABLE"), (0.1, "SPARSE_TABLE"), (0.0, "SPARSE_TABLE")])
def test_tables_come_back(width: str, density: float, form: str) -> None:
    table = table_of(density, width, 21)
    for given in (table, to_csr(table)):
        packed = pack_table(given, width, STEP)
        assert packed.form == form
        np.testing.assert_array_equal(unpacked(packed), table)


def test_width_is_only_taken_where_it_is_exact() -> None:
    table = table_of(1.0, "FLOAT32")
    assert pack_table(table, "INT8", STEP).width == "FLOAT32"
    assert pack_table(table, "INT8").width == "FLOAT32"
    np.testing.assert_array_equal(unpacked(pack_table(table, "INT8", STEP)), table)
    np.testing.assert_allclose(unpacked(pack_table(table, "BFLOAT16")), table, rtol=2**-8)


@native
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize(
    ("activation", "scale", "positions"), [("LINEARLY", 1.0, False), ("RELU", 0.5, False), ("LINEARLY", 2.0, True)]
)
def test_words_are_looked_up(width: str, density: float, activation: str, scale: float, positions: bool) -> None:
    table = table_of(density, width)
    added = np.random.default_rng(1).normal(size=(500, WORDS)) if positions else None
    plan = plan_of(table, width, activation, scale, added)
    inputs = Inputs(features=np.ones((3, 1), np.float32), positions=np.ones(3, np.uint32))
    found, wanted = (
        path(plan).search(inputs, Decoding(beam=3, max_length=4)) for path in (NativePath, NumpyPath)
    )  # fmt: skip
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in wanted]
    np.testing.assert_allclose(found[0][0].log_probs, wanted[0][0].log_probs, atol=1e-5)
    logits = scale * table[2].astype(np.float64) + (0 if added is None else added[0])
    logits = np.maximum(logits, 0) if activation == "RELU" else logits
    log_probs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    token = (*found[0][0].tokens, 3)[0]
    assert found[0][0].log_probs[0] == pytest.approx(log_probs[token], abs=1e-5)


@native
@pytest.mark.parametrize("density", [1.0, 0.2])
def test_damaged_tables_are_refused(density: float) -> None:
    """Every field of its entry, and what a sparse table points with."""
    sound = plan_of(table_of(density, "FLOAT32"), "FLOAT32", "LINEARLY", 1.0, None)
    NativePath(sound)
    for field, value in {"rows": 36, "columns": 38, "form": 1, "width": 2, "bytes": 64, "at": 2**31}.items():
        plan = Plan.of(sound.data.copy())
        plan.matrices[0][field] = value
        with pytest.raises(FormatError, match="damaged"):
            NativePath(plan)
    at = int(sound.matrices[0]["at"])
    for place in range(0, 4 * (WORDS + 1), 4) if density < 1 else ():
        plan = Plan.of(sound.data.copy())
        plan.arena[at + place : at + place + 4].view("<u4")[0] += 2**20
        with pytest.raises(FormatError, match="damaged"):
            NativePath(plan)


def test_weights_in_both_forms() -> None:
    left, right = table_of(0.2, "FLOAT32", 9), table_of(0.4, "FLOAT32", 5)
    rows = np.array([4, 0, 4, 36])
    for first, second in ((left, right), (to_csr(left), right), (to_csr(left), to_csr(right))):
        for found, wanted in [
            (side_by_side([first, second]), np.concatenate([left, right], axis=1)),
            (columns_of(first, 2, 7), left[:, 2:7]),
            (rows_of(first, rows), left[rows]),
            (rectified(first), np.maximum(left, 0)),
        ]:
            np.testing.assert_array_equal(unpacked(pack_table(found)), wanted)


def test_no_positions_are_none() -> None:
    assert Builder().constant(None) == NONE
