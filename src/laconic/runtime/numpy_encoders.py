"""The operations of encoders in numpy; see numpy_path. A map is a row of a table, its pixels row by row."""

from collections.abc import Callable, Iterator

import numpy as np

from laconic.runtime.numpy_work import Table, Work, activated
from laconic.runtime.operations import STARTS


def read_pixels(work: Work, y: int) -> None:
    """Bytes to numbers, in the order of laconic.spec.pixels.Normalization: divided, then shifted."""
    assert work.inputs.pixels is not None
    planes = work.inputs.pixels[0].reshape(-1, 3).T.astype(np.float32)
    header = work.plan.header
    work.table(y)[:3] = planes / header["scale"][:, None] - header["shift"][:, None]


def convolve(
    work: Work, x: int, x_row: int, y: int, y_row: int, matrix: int, height: int, width: int, kernel: int, stride: int,
    start: int, activation: int, scratch: int, columns: int,
) -> None:  # fmt: skip
    """y = activation(W windows(x) + bias), onto what y holds where it starts from itself."""
    weight, bias = work.matrix(matrix)
    channels = weight.shape[1] // kernel**2
    maps = work.table(x, x_row)[:channels].reshape(channels, height, width)
    if kernel == stride == 1:
        product = weight @ maps.reshape(channels, -1)
    else:
        seen = np.stack(list(_taps(maps, kernel, stride)), axis=1)
        product = weight @ seen.reshape(weight.shape[1], -1)
    if bias is not None:
        product += bias[:, None]
    target = work.table(y, y_row)[: len(weight)]
    if STARTS[start] == "FROM_SELF":
        product += target
    target[:] = activated(product, activation)


def depthwise(
    work: Work, x: int, y: int, weights: int, bias: int, height: int, width: int, kernel: int, stride: int,
    activation: int, scratch: int,
) -> None:  # fmt: skip
    """Each channel convolved with a kernel of its own."""
    target = work.table(y)
    channels = len(target)
    kernels = work.plan.constant(weights, channels, kernel**2)
    assert kernels is not None
    shift = work.plan.constant(bias, channels)
    total = np.zeros_like(target) if shift is None else np.repeat(shift[:, None], target.shape[1], axis=1)
    maps = work.table(x)[:channels].reshape(channels, height, width)
    for at, seen in enumerate(_taps(maps, kernel, stride)):
        total += kernels[:, at, None] * seen.reshape(channels, -1)
    target[:] = activated(total, activation)


def max_pool(work: Work, x: int, y: int, height: int, width: int, kernel: int, stride: int, scratch: int) -> None:
    """The largest number of each window; padding never wins."""
    target = work.table(y)
    maps = work.table(x)[: len(target)].reshape(len(target), height, width)
    target[:] = -np.inf
    for seen in _taps(maps, kernel, stride, -np.inf):
        np.maximum(target, seen.reshape(target.shape), out=target)


def add(work: Work, x: int, x_row: int, y: int, y_row: int, rows: int) -> None:
    """y += x."""
    work.table(y, y_row)[:rows] += work.table(x, x_row)[:rows]


def mean(work: Work, x: int, y: int) -> None:
    """The mean over positions, into the column of the image at work."""
    target = work.table(y)
    target[:, work.image] = work.table(x)[: len(target)].mean(axis=1)


def _taps(maps: Table, kernel: int, stride: int, outside: float = 0.0) -> Iterator[Table]:
    """What each place of a window sees: maps (channels, height, width) -> kernel**2 times (channels, rows, columns).

    Windows stand by TensorFlow's SAME rule: of an odd padding the larger half comes behind.
    """
    sides = [-(-side // stride) for side in maps.shape[1:]]
    missing = [max((n - 1) * stride + kernel - side, 0) for n, side in zip(sides, maps.shape[1:], strict=True)]
    padding = [(0, 0), *((total // 2, total - total // 2 + stride) for total in missing)]
    padded = np.pad(maps, padding, constant_values=outside)
    rows, columns = sides
    for row in range(kernel):
        for column in range(kernel):
            yield padded[:, row::stride, column::stride][:, :rows, :columns]


OPERATIONS: dict[str, Callable[..., None]] = {
    "READ_PIXELS": read_pixels,
    "CONVOLVE": convolve,
    "DEPTHWISE": depthwise,
    "MAX_POOL": max_pool,
    "ADD": add,
    "MEAN": mean,
}
