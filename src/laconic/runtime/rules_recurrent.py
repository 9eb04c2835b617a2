"""How Soft-Attention and Up-Down become programs.

What a recurrent matrix reads lies in one buffer, part below part, so that [hidden ; context ; word] is put together by
writing each part to its place. What depends on the image alone (keys, values, the pooled feature's share) is computed
once, and biases that only add up are added when the plan is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.matrices import Weights, dense
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.runtime.weights import columns_of, read_matrix, read_vector, rectified, rows_of, side_by_side
from laconic.spec.captioners import SoftAttentionConfig, UpDownConfig
from laconic.spec.packed import CaptionerSpec
from laconic.store import Packed

CAPTIONS_AT_ONCE = 8  # of one image, in ATTEND_ADDITIVE; native/attention.h has the same number


@dataclass(frozen=True)
class _File:
    """Weights of the decoder, by the names that its module gives them."""

    packed: Packed

    def matrix(self, name: str, rows: int, columns: int) -> Weights:
        return read_matrix(self.packed, f"decoder.{name}", rows, columns)

    def vector(self, name: str, size: int) -> NDArray[np.float32]:
        return read_vector(self.packed, f"decoder.{name}", size)

    def step(self, name: str) -> float:
        """Of the grid that its values lie on; 0 where there is none."""
        return self.packed.step(f"decoder.{name}")


@dataclass(frozen=True)
class _Attention:
    """Additive attention: softmax_p(score . tanh(key_p + query)), over what an image keeps; native/attention.h."""

    query: Weights  # (units, hidden)
    bias: NDArray[np.float32] | None  # (units,) of the query and the key together
    key: Weights  # (units, what keys are made of)
    score: NDArray[np.float32]  # (units,)
    query_step: float  # of the grid that it lies on, or 0
    key_step: float

    def without_idle_units(self) -> "_Attention":
        """Units that the score does not look at are left out; one stays."""
        used = np.flatnonzero(self.score)
        used = used if len(used) else np.zeros(1, np.intp)
        bias = None if self.bias is None else self.bias[used]
        query, key = rows_of(self.query, used), rows_of(self.key, used)
        return replace(self, query=query, bias=bias, key=key, score=self.score[used])

    def add(self, builder: Builder, keyed: Place, values: int, hidden: Place, context: Place) -> None:
        """Adds keys of `keyed` to the program `image`, and to `step` what is seen of `values` when `hidden` asks."""
        units = len(self.score)
        keys = builder.buffer(units, "POSITIONS", kept=True)
        factors = builder.buffer(units + 1, "POSITIONS", kept=True)
        builder.linear("image", keyed, Place(keys), builder.matrix(self.key, self.bias, step=self.key_step))
        builder.add("image", "FACTOR", x=Place(keys), y=Place(factors))
        query = builder.buffer(units, "ROWS")
        weights = builder.buffer(2 * CAPTIONS_AT_ONCE, "POSITIONS")
        builder.linear("step", hidden, Place(query), builder.matrix(self.query, step=self.query_step))
        builder.add(
            "step", "ATTEND_ADDITIVE", query=Place(query), keys=Place(keys), factors=Place(factors),
            values=Place(values), score=builder.constant(self.score), weights=Place(weights), y=context,
        )  # fmt: skip


def plan_soft_attention(
    builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int
) -> dict[str, int]:
    """See laconic.models.soft_attention."""
    config = spec.captioner
    assert isinstance(config, SoftAttentionConfig)
    file, size, word = _File(packed), config.hidden, config.word
    values = builder.buffer(size, "POSITIONS", kept=True)
    value = builder.matrix(file.matrix("value.weight", size, config.grid_channels), step=file.step("value.weight"))
    builder.linear("image", Place(grid), Place(values), value)
    initial = builder.buffer(size, "IMAGES")
    first = file.matrix("initial.weight", size, config.pooled_channels)
    builder.linear("images", Place(pooled), Place(initial), builder.matrix(first, step=file.step("initial.weight")))
    # The GRU's gates read [hidden ; context ; word], its candidate [context ; word ; reset hidden].
    rows = 3 * size + word if config.cell == "gru" else 2 * size + word
    parts = builder.buffer(rows, "ROWS", kept=range(2 * size))
    hidden, context, words = Place(parts), Place(parts, size), Place(parts, 2 * size)
    builder.add("step", "INITIAL", x=Place(initial), y=hidden)
    _embed(builder, file, config, words, relu=False)
    (_add_gru if config.cell == "gru" else _add_lstm)(builder, file, config, hidden)
    key = file.matrix("key.weight", size, config.grid_channels)
    attention = _Attention(
        query=file.matrix("query.weight", size, size), bias=None, key=key,
        score=_row(file.matrix("score.weight", 1, size)), query_step=file.step("query.weight"),
        key_step=file.step("key.weight"),
    )  # fmt: skip
    attention.without_idle_units().add(builder, Place(grid), values, hidden, context)
    return _predict(builder, file, config, hidden)


def plan_up_down(builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    """See laconic.models.up_down."""
    config = spec.captioner
    assert isinstance(config, UpDownConfig)
    file, size, word = _File(packed), config.hidden, config.word
    values = builder.buffer(size, "POSITIONS", kept=True)
    weight, bias = file.matrix("region.weight", size, config.grid_channels), file.vector("region.bias", size)
    region = builder.matrix(weight, bias, step=file.step("region.weight"))
    builder.linear("image", Place(grid), Place(values), region, "RELU")
    share = _add_pooled_share(builder, file, config, pooled)
    # The attention LSTM reads [word ; language ; attention], the language LSTM [language ; attention ; context].
    parts = builder.buffer(word + 3 * size, "ROWS", kept=range(word, word + 2 * size))
    words, language, attention = Place(parts), Place(parts, word), Place(parts, word + size)
    context = Place(parts, word + 2 * size)
    _embed(builder, file, config, words, relu=True)
    given = file.matrix("attention_lstm.weight_ih", 4 * size, 2 * size + word)
    own = file.matrix("attention_lstm.weight_hh", 4 * size, size)
    pieces = [columns_of(given, 2 * size, 2 * size + word), columns_of(given, 0, size)]
    gates = [
        (side_by_side(pieces), file.step("attention_lstm.weight_ih")),
        (own, file.step("attention_lstm.weight_hh")),
    ]
    _lstm(builder, gates, None, words, attention, image=share)
    _up_down_attention(file, config).without_idle_units().add(builder, Place(values), values, attention, context)
    given = file.matrix("language_lstm.weight_ih", 4 * size, 2 * size)
    own = file.matrix("language_lstm.weight_hh", 4 * size, size)
    pieces = [columns_of(given, size, 2 * size), columns_of(given, 0, size)]
    gates = [(own, file.step("language_lstm.weight_hh")), (side_by_side(pieces), file.step("language_lstm.weight_ih"))]
    _lstm(builder, gates, _lstm_bias(file, "language_lstm", size), language, language)
    return _predict(builder, file, config, language)


def _add_pooled_share(builder: Builder, file: _File, config: UpDownConfig, pooled: int) -> int:
    """Adds what the pooled feature brings to the gates of the attention LSTM, its bias included; returns the buffer."""
    size = config.hidden
    embedded, share = builder.buffer(size, "IMAGES"), builder.buffer(4 * size, "IMAGES")
    weight = file.matrix("pooled.weight", size, config.pooled_channels)
    matrix = builder.matrix(weight, file.vector("pooled.bias", size), step=file.step("pooled.weight"))
    builder.linear("images", Place(pooled), Place(embedded), matrix, "RELU")
    given = file.matrix("attention_lstm.weight_ih", 4 * size, 2 * size + config.word)
    bias, step = _lstm_bias(file, "attention_lstm", size), file.step("attention_lstm.weight_ih")
    matrix = builder.matrix(columns_of(given, size, 2 * size), bias, step=step)
    builder.linear("images", Place(embedded), Place(share), matrix)
    return share


def _up_down_attention(file: _File, config: UpDownConfig) -> _Attention:
    """The bias of the score adds the same to all positions, and is left out."""
    units, size = config.attention, config.hidden
    return _Attention(
        query=file.matrix("query.weight", units, size),
        bias=file.vector("query.bias", units) + file.vector("key.bias", units),
        key=file.matrix("key.weight", units, size),
        score=_row(file.matrix("score.weight", 1, units)),
        query_step=file.step("query.weight"),
        key_step=file.step("key.weight"),
    )


def _add_lstm(builder: Builder, file: _File, config: SoftAttentionConfig, hidden: Place) -> None:
    size = config.hidden
    weight = _reading_hidden_first(file, "gates", 4 * size, config)
    _lstm(builder, [(weight, file.step("gates.weight"))], file.vector("gates.bias", 4 * size), hidden, hidden)


def _add_gru(builder: Builder, file: _File, config: SoftAttentionConfig, hidden: Place) -> None:
    """TensorFlow's GRU: the reset gate acts before the candidate's matrix."""
    size, word = config.hidden, config.word
    context, reset = hidden.below(size), hidden.below(2 * size + word)
    gates, candidate = builder.buffer(2 * size, "ROWS"), builder.buffer(size, "ROWS")
    weight = _reading_hidden_first(file, "gates", 2 * size, config)
    matrix = builder.matrix(weight, file.vector("gates.bias", 2 * size), step=file.step("gates.weight"))
    builder.linear("step", hidden, Place(gates), matrix)
    builder.add("step", "GRU_RESET", gates=Place(gates), hidden=hidden, y=reset)
    weight = file.matrix("candidate.weight", size, word + 2 * size)
    pieces = [
        columns_of(weight, *span)
        for span in ((word, word + size), (0, word), (word + size, word + 2 * size))
    ]  # fmt: skip
    bias, step = file.vector("candidate.bias", size), file.step("candidate.weight")
    matrix = builder.matrix(side_by_side(pieces), bias, step=step)
    builder.linear("step", context, Place(candidate), matrix)
    builder.add("step", "GRU_UPDATE", gates=Place(gates), candidate=Place(candidate), hidden=hidden)


def _reading_hidden_first(file: _File, name: str, rows: int, config: SoftAttentionConfig) -> Weights:
    """A matrix for [word ; context ; hidden], as the file has it, for [hidden ; context ; word]."""
    size, word = config.hidden, config.word
    weight = file.matrix(f"{name}.weight", rows, word + 2 * size)
    spans = ((word + size, word + 2 * size), (word, word + size), (0, word))
    return side_by_side([columns_of(weight, *span) for span in spans])


def _lstm(
    builder: Builder, parts: Sequence[tuple[Weights, float]], bias: NDArray[np.float32] | None, x: Place, hidden: Place,
    image: int = NONE,
) -> None:  # fmt: skip
    """Adds a step of an LSTM that reads `x` and writes `hidden`, with a new cell; `image`: a share of its gates.

    parts: of the matrix of its gates, side by side, each with the step of its grid. They become one matrix unless their
        steps differ: then each keeps its own, and adds to the gates.
    """
    (first, step), *others = parts
    if all(other == step for _, other in others):
        first, others = side_by_side([weights for weights, _ in parts]), []
    rows = first.shape[0]
    gates, cell = builder.buffer(rows, "ROWS"), builder.buffer(rows // 4, "ROWS", kept=True)
    start = "FROM_BIAS" if image == NONE else "FROM_IMAGE"
    builder.linear("step", x, Place(gates), builder.matrix(first, bias, step=step), start=start, image=image)
    for before, (weights, step) in zip(parts, others, strict=False):
        x = x.below(before[0].shape[1])
        builder.linear("step", x, Place(gates), builder.matrix(weights, step=step), start="FROM_SELF")
    builder.add("step", "LSTM", gates=Place(gates), cell=Place(cell), hidden=hidden)


def _lstm_bias(file: _File, name: str, size: int) -> NDArray[np.float32]:
    return file.vector(f"{name}.bias_ih", 4 * size) + file.vector(f"{name}.bias_hh", 4 * size)


def _embed(builder: Builder, file: _File, config: SoftAttentionConfig | UpDownConfig, y: Place, *, relu: bool) -> None:
    """Adds the look-up of the last word: of a table that is rectified once and for all, unless it is factorised."""
    name, size = "embedding.weight", config.word
    if not config.rank:
        weight = file.matrix(name, config.vocabulary, size)
        builder.embed("step", y, builder.table(rectified(weight) if relu else weight, step=file.step(name)))
        return
    few = Place(builder.buffer(config.rank, "ROWS"))
    weight = file.matrix(name, config.vocabulary, config.rank)
    builder.embed("step", few, builder.table(weight, step=file.step(name)))
    wide = builder.matrix(file.matrix("widen.weight", size, config.rank), step=file.step("widen.weight"))
    builder.linear("step", few, y, wide, "RELU" if relu else "LINEARLY")


def _predict(
    builder: Builder, file: _File, config: SoftAttentionConfig | UpDownConfig, hidden: Place
) -> dict[str, int]:
    size, word = config.hidden, config.word
    columns = config.rank or (word if config.tied else size)
    if config.rank or columns != size:
        reduce = builder.matrix(file.matrix("reduce.weight", columns, size), step=file.step("reduce.weight"))
        few = Place(builder.buffer(columns, "ROWS"))
        builder.linear("step", hidden, few, reduce)
        hidden = few
    logits = builder.buffer(config.vocabulary, "ROWS")
    name = "embedding.weight" if config.tied else "output.weight"
    weight, bias = file.matrix(name, config.vocabulary, columns), file.vector("output.bias", config.vocabulary)
    builder.linear("step", hidden, Place(logits), builder.matrix(weight, bias, step=file.step(name)))
    return {"logits": logits}


def _row(weight: Weights) -> NDArray[np.float32]:
    """The one row of a matrix."""
    row: NDArray[np.float32] = dense(weight)[0]
    return row
