"""Sparse weights as native/sparse.h reads them: blocks of columns, groups of four about equally full rows.

Where each non-zero goes follows from counts alone, so that packing sorts rows, never non-zeros. A cell is the part of
a row that lies in one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.values import STORED, widen
from laconic.store import Csr

GROUP = 4
SLICE = 512
MOST_BLOCK = 1 << 14
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class _Layout:
    """Bytes in all, and where things begin, in bytes, or what stands there."""

    bytes: int
    block_at: Whole  # (blocks,)
    block_segments: Whole
    segment_at: Whole  # (segments,)
    segment_count: Whole
    segment_groups: Whole
    rows_at: Whole  # (groups,)
    rows: Whole  # (groups, 4)
    cell_at: Whole  # (blocks, rows): its first step
    cell_lane: Whole  # which of the four rows of its group it is


def step_bytes(value_bytes: int) -> int:
    """Of one step: four columns, four values."""
    return GROUP * (2 + value_bytes)


def pack_sparse(csr: Csr, columns: int, block: int) -> bytes:
    """The bytes of a matrix (rows, columns), at least 4 rows, whose values are as they are stored; `block` is a power
    of two, at most MOST_BLOCK."""
    return b"".join(_pack_slice(csr, rows, columns, block) for rows in _slices(len(csr.indptr) - 1))


def _slices(rows: int) -> Iterator[range]:
    """The rows of each slice; at least 4, where there are so many."""
    first = 0
    while first < rows:
        end = rows if rows - first < SLICE + GROUP else first + SLICE
        yield range(first, end)
        first = end


def _pack_slice(csr: Csr, of_slice: range, columns: int, block: int) -> bytes:
    starts = csr.indptr[of_slice.start : of_slice.stop + 1]
    part = slice(int(starts[0]), int(starts[-1]))
    indices, values, lengths = csr.indices[part], csr.values[part], starts[1:] - starts[:-1]
    rows, blocks, size = len(of_slice), -(-columns // block), step_bytes(values.itemsize)
    cells = np.repeat(np.arange(0, rows * blocks, blocks, dtype=np.int32), lengths)
    cells += indices >> (block.bit_length() - 1)
    counts = np.bincount(cells, minlength=rows * blocks)
    layout = _lay_out(counts.reshape(rows, blocks).T, size)
    data = np.zeros(layout.bytes, np.uint8)
    words = data.view("<u4")
    words[layout.block_at >> 2] = layout.block_segments
    words[layout.segment_at >> 2] = layout.segment_count
    words[(layout.segment_at >> 2) + 1] = layout.segment_groups
    data.view("<u2")[(layout.rows_at >> 1)[:, None] + np.arange(GROUP)] = layout.rows
    # Non-zeros of a cell follow each other in a Csr: the k-th goes to the k-th step of its group.
    origin = layout.cell_at.T.ravel() - (np.cumsum(counts) - counts) * size
    lanes = layout.cell_lane.T.ravel()[cells]
    at = origin[cells] + np.arange(0, len(cells) * size, size)
    data.view("<u2")[(at >> 1) + lanes] = (indices & (block - 1)) << 2
    data.view(values.dtype)[(at + 2 * GROUP) // values.itemsize + lanes] = values
    return data.tobytes()


def _lay_out(counts: Whole, size: int) -> _Layout:
    """`counts` (blocks, rows): non-zeros of each cell. `size`: bytes of a step."""
    blocks, rows = counts.shape
    groups = -(-rows // GROUP)
    order = np.argsort((MOST_BLOCK - counts).astype(np.uint16), axis=1, kind="stable")  # fullest first
    of_block = np.arange(blocks)[:, None]
    filled = np.concatenate([order, order[:, : groups * GROUP - rows]], axis=1).reshape(blocks, groups, GROUP)
    steps = counts[of_block, order[:, ::GROUP]]
    kept = steps > 0
    group_block, group_steps = np.nonzero(kept)[0], steps[kept]
    begins = np.ones(len(group_steps), bool)
    begins[1:] = (group_block[1:] != group_block[:-1]) | (group_steps[1:] != group_steps[:-1])
    segment = np.cumsum(begins) - 1  # of each group
    leaders = np.flatnonzero(begins)
    in_segment = np.bincount(segment, minlength=len(leaders))
    sizes = 8 + in_segment * (2 * GROUP + group_steps[leaders] * size)
    block_segments = np.bincount(group_block[leaders], minlength=blocks)
    segment_at = np.cumsum(sizes) - sizes + 4 * (group_block[leaders] + 1)
    block_bytes = np.bincount(group_block[leaders], weights=sizes, minlength=blocks).astype(np.int64) + 4
    place = np.arange(len(segment)) - leaders[segment]  # of each group in its segment
    rows_at = segment_at[segment] + 8 + 2 * GROUP * place
    group_at = np.zeros((blocks, groups), np.int64)
    group_at[kept] = segment_at[segment] + 8 + 2 * GROUP * in_segment[segment] + place * group_steps * size
    cell_at, cell_lane = np.empty((blocks, rows), np.int64), np.empty((blocks, rows), np.int64)
    cell_at[of_block, order] = np.repeat(group_at, GROUP, axis=1)[:, :rows]
    cell_lane[of_block, order] = np.arange(rows) % GROUP
    return _Layout(
        bytes=int(block_bytes.sum()), block_at=np.cumsum(block_bytes) - block_bytes, block_segments=block_segments,
        segment_at=segment_at, segment_count=group_steps[leaders], segment_groups=in_segment, rows_at=rows_at,
        rows=filled[kept], cell_at=cell_at, cell_lane=cell_lane,
    )  # fmt: skip


def unpack_sparse(
    data: NDArray[np.uint8], rows: int, columns: int, block: int, width: str, step: float
) -> NDArray[np.float32]:
    """The dense matrix (rows, columns) of bytes that have been checked."""
    matrix, size, at = np.zeros((rows, columns), np.float32), step_bytes(np.dtype(STORED[width]).itemsize), 0
    words = data.view("<u4")
    for of_slice, column in product(_slices(rows), range(0, columns, block)):
        segments, at = int(words[at >> 2]), at + 4
        for _ in range(segments):
            count, groups = map(int, words[at >> 2 : (at >> 2) + 2])
            rows_at, steps_at = at + 8, at + 8 + groups * GROUP * 2
            at = steps_at + groups * count * size
            lines = data[rows_at:steps_at].view("<u2").reshape(groups, 1, GROUP).astype(np.int64)
            steps = data[steps_at:at].reshape(groups, count, size)
            places = np.ascontiguousarray(steps[:, :, : 2 * GROUP]).view("<u2").astype(np.int64) >> 2
            values = widen(np.ascontiguousarray(steps[:, :, 2 * GROUP :]), width, step)
            np.add.at(matrix, (of_slice.start + lines, column + places), values)
    return matrix
