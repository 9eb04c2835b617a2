"""The operations of recurrent captioners in numpy; what they mean stands in native/recurrent.h and attention.h."""

from collections.abc import Callable

import numpy as np

from laconic.runtime.numpy_work import Table, Work, activated
from laconic.runtime.operations import FORMS, NONE
from laconic.runtime.tables import unpack_table


def initial(work: Work, x: int, x_row: int, y: int, y_row: int) -> None:
    """At the first word y is what each caption's image has in x."""
    if work.word == 0:
        found = work.table(x, x_row)[:, work.image_of]
        work.table(y, y_row)[: len(found)] = found


def embed(work: Work, y: int, y_row: int, matrix: int, activation: int, scale: int, positions: int) -> None:
    """y = activation(scale * vector of the last word + that of the position)."""
    table = word_table(work, matrix)
    found = table[work.tokens].T * np.uint32(scale).view(np.float32)
    if positions != NONE:
        sinusoids = work.plan.constant(positions, work.word + 1, table.shape[1])
        assert sinusoids is not None
        found = found + sinusoids[work.word][:, None]
    work.table(y, y_row)[: len(found)] = activated(found, activation)


def word_table(work: Work, number: int) -> Table:
    """A table of word vectors (words, columns); unpacked once."""
    cache = work.plan.unpacked
    if number not in cache:
        row = work.plan.matrices[number]
        assert FORMS[int(row["form"])] in ("TABLE", "SPARSE_TABLE")
        cache[number] = unpack_table(row, work.plan.arena[int(row["at"]) : int(row["at"]) + int(row["bytes"])])
    found: Table = cache[number]
    return found


def lstm(work: Work, gates: int, cell: int, hidden: int, hidden_row: int) -> None:
    """New cell and hidden state from the gates: input, forget, candidate, output."""
    i, f, g, o = np.split(work.table(gates), 4)
    held = work.table(cell)
    held[:] = sigmoid(f) * held + sigmoid(i) * np.tanh(g)
    work.table(hidden, hidden_row)[: len(held)] = sigmoid(o) * np.tanh(held)


def gru_reset(work: Work, gates: int, hidden: int, hidden_row: int, y: int, y_row: int) -> None:
    """y = sigmoid(reset gate) * hidden."""
    reset = np.split(work.table(gates), 2)[0]
    work.table(y, y_row)[: len(reset)] = sigmoid(reset) * work.table(hidden, hidden_row)[: len(reset)]


def gru_update(work: Work, gates: int, candidate: int, hidden: int, hidden_row: int) -> None:
    """hidden = u * hidden + (1 - u) * tanh(candidate), u = sigmoid(update gate)."""
    update = sigmoid(np.split(work.table(gates), 2)[1])
    held = work.table(hidden, hidden_row)[: len(update)]
    held[:] = update * held + (1 - update) * np.tanh(work.table(candidate)[: len(update)])


def glu(work: Work, x: int, y: int, y_row: int) -> None:
    """y = information * sigmoid(gate), both of which lie in x."""
    information, gate = np.split(work.table(x), 2)
    work.table(y, y_row)[: len(gate)] = information * sigmoid(gate)


def factor(work: Work, x: int, y: int) -> None:
    """y = exp(2 x); its last row is the largest |x| of each column."""
    keys, factors = work.table(x), work.table(y)
    with np.errstate(over="ignore"):
        factors[:-1] = np.exp(2 * keys)
    factors[-1] = np.abs(keys).max(axis=0)


def attend_additive(
    work: Work, query: int, keys: int, factors: int, values: int, score: int, weights: int, y: int, y_row: int
) -> None:
    """y = values . softmax(score . tanh(key + query)) over the positions of each caption's image."""
    queries = work.table(query)
    scores = work.plan.constant(score, len(queries))
    assert scores is not None
    target = work.table(y, y_row)
    for image in np.unique(work.image_of):
        captions = work.image_of == image
        energy = np.tanh(work.table(keys, image=image)[:, :, None] + queries[:, None, captions])
        seen = work.table(values, image=image)
        found = np.einsum("u,upc->pc", scores, energy)
        shares = np.exp(found - found.max(axis=0))
        target[: len(seen), captions] = seen @ (shares / shares.sum(axis=0))


def sigmoid(x: Table) -> Table:
    """1 / (1 + exp(-x)), without overflow."""
    found: Table = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x)
    return found


OPERATIONS: dict[str, Callable[..., None]] = {
    "INITIAL": initial,
    "EMBED": embed,
    "LSTM": lstm,
    "GRU_RESET": gru_reset,
    "GRU_UPDATE": gru_update,
    "GLU": glu,
    "FACTOR": factor,
    "ATTEND_ADDITIVE": attend_additive,
}
