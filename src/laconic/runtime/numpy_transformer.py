"""The operations of transformers in numpy; see numpy_path. Their arguments are those of the native operations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from laconic.runtime.numpy_work import Table, Work
from laconic.runtime.operations import NONE
from laconic.runtime.relations import embed_pairs


def layer_norm(work: Work, x: int, y: int, weight: int, bias: int) -> None:
    """weight (x - mean) / deviation + bias over the rows, with the deviation of a sample."""
    table = work.table(x)
    rows = len(table)
    centred = table - table.mean(0)
    ratio = np.float32(np.sqrt((rows - 1) / rows))
    normed = centred * (ratio / np.sqrt(np.square(centred).mean(0) + np.float32(1e-12)))
    if weight != NONE:
        normed *= work.plan.constant(weight, rows, 1)
    if bias != NONE:
        normed += work.plan.constant(bias, rows, 1)
    work.table(y)[:] = normed


def relate(work: Work, y: int, boxes: int, plus_one: int) -> None:
    """How the boxes of the image at work, or constant ones, lie as seen from each other."""
    target = work.table(y)
    given = work.inputs.boxes if boxes == NONE else work.plan.constant(boxes, int(work.plan.header["positions"]), 4)
    assert given is not None
    pairs = embed_pairs(given, bool(plus_one))
    target[: len(pairs)] = pairs


def attend_related(
    work: Work, query: int, query_row: int, seen: int, seen_row: int, y: int, y_row: int, width: int, heads: int,
    relation: int, relation_row: int, constant: int,
) -> None:  # fmt: skip
    """Regions of an image look at each other; what they find depends on how they lie, where that is told."""
    asked = _heads(work.table(query, query_row)[:width], heads)
    count = asked.shape[-1]
    bias: Any
    if relation != NONE:
        bias = work.table(relation, relation_row)[:heads].reshape(heads, count, count)
    else:
        bias = work.plan.constant(constant, heads, count, count)  # None where there is none
    work.table(y, y_row)[:width] = _attend(asked, work.table(seen, seen_row), bias)


def attend_words(
    work: Work, query: int, query_row: int, words: int, words_row: int, y: int, y_row: int, width: int, heads: int,
    kept: int,
) -> None:  # fmt: skip
    """Captions look at their words so far, the last of which is added to what is kept."""
    last = work.table(words, words_row)[: 2 * width].T[:, None]
    before = work.words.get(kept, np.empty((len(last), 0, 2 * width), np.float32))
    now = work.words[kept] = np.concatenate([before, last], 1)
    captions, count = now.shape[:2]
    asked = work.table(query, query_row)[:width].T.reshape(captions, heads, 1, -1)
    keys, values = (part.reshape(captions, count, heads, -1).swapaxes(1, 2) for part in np.split(now, 2, -1))
    found = _softmax(asked @ keys.swapaxes(-1, -2) / np.float32(np.sqrt(width // heads))) @ values
    work.table(y, y_row)[:width] = found.reshape(captions, width).T


def attend_positions(
    work: Work, query: int, query_row: int, seen: int, seen_row: int, y: int, y_row: int, width: int, heads: int
) -> None:
    """Captions look at the positions of their images."""
    asked, target = work.table(query, query_row)[:width], work.table(y, y_row)
    for image in np.unique(work.image_of):
        of = work.image_of == image
        memory = work.table(seen, seen_row, image=int(image))
        target[:width, of] = _attend(_heads(asked[:, of], heads), memory, None)


def _attend(asked: Table, seen: Table, bias: Table | None) -> Table:
    """Queries (heads, size, columns), keys and below them values (2 width.., positions), bias (heads, positions,
    columns) -> (width, columns)."""
    heads, size, columns = asked.shape
    width = heads * size
    keys, values = _heads(seen[:width], heads), _heads(seen[width : 2 * width], heads)
    logits = keys.swapaxes(1, 2) @ asked / np.float32(np.sqrt(size))
    if bias is not None:
        logits = logits + bias
    weights = _softmax(logits.swapaxes(1, 2)).swapaxes(1, 2)
    found: Table = (values @ weights).reshape(width, columns)
    return found


def _heads(table: Table, heads: int) -> Table:
    return table.reshape(heads, -1, table.shape[1])


def _softmax(logits: Any) -> Any:
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


OPERATIONS: dict[str, Callable[..., None]] = {
    "LAYER_NORM": layer_norm,
    "RELATE": relate,
    "ATTEND_RELATED": attend_related,
    "ATTEND_WORDS": attend_words,
    "ATTEND_POSITIONS": attend_positions,
}
