"""Convolutions and pooling: native library, numpy and torch agree at odd sizes; what could leave a table is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from laconic.errors import FormatError
from laconic.models.layers import ACTIVATIONS, pad_same
from laconic.native.library import library
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import NONE, OPERATIONS, Place
from laconic.runtime.plan import Plan
from laconic.runtime.program import Builder

pytestmark = pytest.mark.skipif(library() is None, reason="there is no native library")

CHANNELS = 5
FACTS = {"scale": (127.5, 100.0, 80.0), "shift": (1.0, 0.5, 0.0), "pad": 0, "unk": 1, "bos": 2, "eos": 3}
random = np.random.default_rng(4)
MIX = random.standard_normal((CHANNELS, 3)).astype(np.float32)


def plan_of(side: int, outputs: int, rows: int, add: Callable[[Builder, int, int], None]) -> Plan:
    """A plan whose grid is what `add` makes of CHANNELS maps, mixtures of red, green and blue."""
    b = Builder()
    grid, pooled, logits = b.buffer(rows, "POSITIONS"), b.buffer(rows, "IMAGES"), b.buffer(4, "ROWS")
    pixels, x = b.buffer(3, "PIXELS", columns=side**2), b.buffer(CHANNELS, "PIXELS", columns=side**2)
    b.add("encode", "READ_PIXELS", y=Place(pixels))
    convolve(b, pixels, Place(x), MIX[..., None, None], side)
    add(b, x, grid)
    b.add("encode", "MEAN", x=Place(grid), y=Place(pooled))
    facts = {
        "grid": grid, "pooled": pooled, "logits": logits, "channels": rows, "pooled_channels": rows, "side": side,
        "positions": outputs**2,
    }  # fmt: skip
    return b.finish({**FACTS, **facts}, ["pad", "unk", "bos", "eos"])


def convolve(
    b: Builder, x: int, y: Place, weights: np.ndarray, side: int, stride: int = 1, bias: np.ndarray | None = None,
    start: str = "FROM_BIAS", activation: str = "LINEARLY", columns: int = 48,
) -> None:  # fmt: skip
    kernel = weights.shape[-1]
    plain = kernel == stride == 1
    scratch = NONE if plain else b.buffer(int(np.prod(weights.shape[1:])), "PIXELS", columns=columns)
    b.add(
        "encode", "CONVOLVE", x=Place(x), y=y, matrix=b.matrix(weights, bias), height=side, width=side, kernel=kernel,
        stride=stride, start=start, activation=activation, scratch=scratch, columns=columns,
    )  # fmt: skip


def band(b: Builder, outputs: int, kernel: int, stride: int, rows: int = 2) -> int:
    """Scratch for a few rows of windows, so that maps take several bands."""
    row = stride * (-(-outputs // 16) * 16 + 16)
    return b.buffer(1, "PIXELS", columns=row * (kernel + (rows - 1) * stride))


def photo(side: int) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)


def maps(side: int) -> torch.Tensor:
    planes = photo(side) / np.float32(FACTS["scale"]) - np.float32(FACTS["shift"])
    return torch.einsum("oc,hwc->ohw", torch.from_numpy(MIX), torch.from_numpy(planes.astype(np.float32)))[None]


def check(plan: Plan, side: int, expected: torch.Tensor) -> None:
    wanted = expected[0].flatten(1).T.numpy()
    for path in (NativePath, NumpyPath):
        grid, pooled = path(plan).features(photo(side))
        np.testing.assert_allclose(grid, wanted, rtol=1e-5, atol=1e-5 * max(np.abs(wanted).max(), 1))
        np.testing.assert_allclose(pooled, wanted.mean(0), rtol=1e-5, atol=1e-5 * max(np.abs(wanted).max(), 1))


SIZES = [
    (side, kernel, stride)
    for side in (1, 2, 3, 7, 9, 16, 33)
    for kernel, stride in ((1, 1), (1, 2), (2, 2), (3, 1), (3, 2), (3, 4), (5, 1), (5, 2), (5, 3), (7, 2), (7, 7))
]


def normal(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("side", "kernel", "stride"), SIZES)
def test_convolutions(side, kernel, stride):
    outputs = -(-side // stride)
    weights, bias = normal(11, CHANNELS, kernel, kernel), normal(11)
    plan = plan_of(side, outputs, 11, lambda b, x, y: convolve(b, x, Place(y), weights, side, stride, bias))
    padded = pad_same(maps(side), kernel, stride)
    check(plan, side, F.conv2d(padded, torch.from_numpy(weights), torch.from_numpy(bias), stride))


@pytest.mark.parametrize(("side", "kernel", "stride"), SIZES)
def test_depthwise(side, kernel, stride):
    outputs = -(-side // stride)
    weights, bias = normal(CHANNELS, 1, kernel, kernel), normal(CHANNELS)

    def add(b, x, y):
        b.add(
            "encode", "DEPTHWISE", x=Place(x), y=Place(y), weights=b.constant(weights), bias=b.constant(bias),
            height=side, width=side, kernel=kernel, stride=stride, activation="LINEARLY",
            scratch=band(b, outputs, kernel, stride, rows=5),
        )  # fmt: skip

    padded = pad_same(maps(side), kernel, stride)
    expected = F.conv2d(padded, torch.from_numpy(weights), torch.from_numpy(bias), stride, groups=CHANNELS)
    check(plan_of(side, outputs, CHANNELS, add), side, expected)


@pytest.mark.parametrize(("side", "kernel", "stride"), SIZES)
def test_max_pooling(side, kernel, stride):
    outputs = -(-side // stride)

    def add(b, x, y):
        b.add(
            "encode", "MAX_POOL", x=Place(x), y=Place(y), height=side, width=side, kernel=kernel, stride=stride,
            scratch=band(b, outputs, kernel, stride),
        )  # fmt: skip

    padded = pad_same(maps(side), kernel, stride, value=-torch.inf)
    check(plan_of(side, outputs, CHANNELS, add), side, F.max_pool2d(padded, kernel, stride))


@pytest.mark.parametrize("activation", ["LINEARLY", "RELU", "RELU6"])
def test_activations(activation):
    weights, filters, bias = normal(4, CHANNELS, 3, 3), 4 * normal(4, 1, 3, 3), normal(4)

    def add(b, x, y):
        middle = b.buffer(4, "PIXELS", columns=81)
        convolve(b, x, Place(middle), weights, 9, bias=bias, activation=activation)
        b.add(
            "encode", "DEPTHWISE", x=Place(middle), y=Place(y), weights=b.constant(filters), bias=NONE, height=9,
            width=9, kernel=3, stride=1, activation=activation, scratch=band(b, 9, 3, 1),
        )  # fmt: skip

    act = ACTIVATIONS[activation.lower().replace("linearly", "none")]
    middle = act(F.conv2d(maps(9), torch.from_numpy(weights), torch.from_numpy(bias), padding=1))
    expected = act(F.conv2d(middle, torch.from_numpy(filters), padding=1, groups=4))
    check(plan_of(9, 9, 4, add), 9, expected)


@pytest.mark.parametrize("side", [3, 9])
def test_residuals_and_parts_of_tables(side):
    first, second = normal(3, CHANNELS, 1, 1), normal(CHANNELS, CHANNELS, 3, 3)
    bias = normal(CHANNELS)

    def add(b, x, y):
        convolve(b, x, Place(y, CHANNELS), first, side)  # before x is added to
        convolve(b, x, Place(y), second, side, bias=bias)
        b.add("encode", "ADD", x=Place(x), y=Place(y), rows=CHANNELS)
        convolve(b, x, Place(y, 1), first, side, bias=bias[:3], start="FROM_SELF", activation="RELU")

    x = maps(side)
    expected = F.conv2d(x, torch.from_numpy(second), torch.from_numpy(bias), padding=1) + x
    more = F.conv2d(x, torch.from_numpy(first))
    expected[:, 1:4] = (expected[:, 1:4] + more + torch.from_numpy(bias[:3])[:, None, None]).relu()
    check(plan_of(side, side, CHANNELS + 3, add), side, torch.cat([expected, more], 1))


def spoiled(plan: Plan, operation: str, argument: str, value: int) -> Plan:
    """The plan with one argument of the last operation of that name changed."""
    found = Plan.of(plan.data)
    at = max(i for i, row in enumerate(found.operations) if list(OPERATIONS)[row["code"]] == operation)
    found.operations[at]["arguments"][OPERATIONS[operation].index(argument)] = value
    return found


def whole_plan() -> Plan:
    """One with every operation of encoders."""

    def add(b, x, y):
        half, quarter = (b.buffer(CHANNELS, "PIXELS", columns=side**2) for side in (9, 5))
        convolve(b, x, Place(half), normal(CHANNELS, CHANNELS, 3, 3), 17, 2, normal(CHANNELS))
        b.add(
            "encode", "DEPTHWISE", x=Place(half), y=Place(quarter), weights=b.constant(normal(CHANNELS, 3, 3)),
            bias=b.constant(normal(CHANNELS)), height=9, width=9, kernel=3, stride=2, activation="RELU6",
            scratch=band(b, 5, 3, 2),
        )  # fmt: skip
        pooled, scratch = b.buffer(CHANNELS, "PIXELS", columns=9), band(b, 3, 2, 2)
        for into in (pooled, y):
            b.add(
                "encode", "MAX_POOL", x=Place(quarter), y=Place(into), height=5, width=5, kernel=2, stride=2,
                scratch=scratch,
            )  # fmt: skip
        b.add("encode", "ADD", x=Place(pooled), y=Place(y), rows=CHANNELS)

    return plan_of(17, 3, CHANNELS, add)


REFUSED = [
    ("READ_PIXELS", {"y": (0, 1, 2, 99, NONE)}),
    (
        "CONVOLVE",
        {
            "x": (0, 1, 2, 99, NONE), "x_row": (1, NONE), "y": (1, 2, 4, 99, NONE), "y_row": (1, NONE),
            "matrix": (0, 2, NONE), "height": (0, 16, 18, NONE), "width": (0, 16, 18, NONE),
            "kernel": (0, 1, 2, 4, 8, NONE), "stride": (0, 1, 3, 8, NONE), "start": (2, 3, NONE),
            "activation": (3, 4, NONE), "scratch": (0, 4, 99, NONE),
            "columns": (0, 8, 64, NONE, NONE - 15),
        },
    ),
    (
        "DEPTHWISE",
        {
            "x": (0, 1, 99, NONE), "y": (1, 2, 99, NONE), "weights": (2, 1 << 30, NONE), "bias": (2, 1 << 30),
            "height": (0, 8, 10, NONE), "width": (0, 8, 10, NONE), "kernel": (0, 7, 8, NONE),
            "stride": (0, 1, 3, 8, NONE), "activation": (3, 4, NONE), "scratch": (0, 1, 99, NONE),
        },
    ),
    (
        "MAX_POOL",
        {
            "x": (1, 2, 99, NONE), "y": (1, 2, 99, NONE), "height": (0, 4, 7, NONE), "width": (0, 4, 7, NONE),
            "kernel": (0, 7, 8, NONE), "stride": (0, 1, 3, 8, NONE), "scratch": (0, 1, 99, NONE),
        },
    ),
    ("ADD", {"x": (1, 2, 99, NONE), "x_row": (1, NONE), "y_row": (1, NONE), "rows": (0, CHANNELS + 1, NONE)}),
    ("MEAN", {"x": (1, 2, 3, 99, NONE), "y": (0, 2, 99, NONE)}),
]  # fmt: skip


def test_what_would_leave_its_tables_is_refused():
    plan = whole_plan()
    NativePath(plan)
    accepted = []
    for operation, arguments in REFUSED:
        for argument, values in arguments.items():
            for value in values:
                try:
                    NativePath(spoiled(plan, operation, argument, value))
                except FormatError:
                    continue
                accepted.append((operation, argument, value))
    assert accepted == []


def test_any_word_of_an_encoder_is_refused_or_runs():
    plan = whole_plan()
    words = plan.operations["arguments"]
    for _ in range(300):
        spoilt = Plan.of(plan.data)
        row, column = (random.integers(0, n) for n in words.shape)
        value = random.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 32, 48, 81, 289, 4096, 1 << 16, 1 << 31, NONE])
        spoilt.operations[row]["arguments"][column] = value
        try:
            path = NativePath(spoilt)
        except FormatError:
            continue
        path.features(photo(17))
