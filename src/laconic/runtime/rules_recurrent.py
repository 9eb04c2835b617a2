"""How Soft-Attention and Up-Down become programs.

What a recurrent matrix reads lies in one buffer, part below part, so that [hidden ; context ; word] is put together by
writing each part to its place. What depends on the image alone (keys, values, the pooled feature's share) is computed
once, and biases that only add up are added when the plan is made.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.decoder_layers import DecoderFile, Layers, Product
from laconic.runtime.matrices import Weights, dense
from laconic.runtime.operations import Place
from laconic.runtime.program import Builder
from laconic.runtime.weights import columns_of, rows_of, side_by_side
from laconic.spec.captioners import SoftAttentionConfig, UpDownConfig
from laconic.spec.packed import CaptionerSpec
from laconic.store import Packed

CAPTIONS_AT_ONCE = 8  # of one image, in ATTEND_ADDITIVE; native/attention.h has the same number


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
    file, size, word = DecoderFile(packed), config.hidden, config.word
    step = Layers(builder, file, "step")
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
    step.embed(config, word, words)
    (_add_gru if config.cell == "gru" else _add_lstm)(step, config, hidden)
    key = file.matrix("key.weight", size, config.grid_channels)
    attention = _Attention(
        query=file.matrix("query.weight", size, size), bias=None, key=key,
        score=_row(file.matrix("score.weight", 1, size)), query_step=file.step("query.weight"),
        key_step=file.step("key.weight"),
    )  # fmt: skip
    attention.without_idle_units().add(builder, Place(grid), values, hidden, context)
    return step.predict(config, hidden, size, word)


def plan_up_down(builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    """See laconic.models.up_down."""
    config = spec.captioner
    assert isinstance(config, UpDownConfig)
    file, size, word = DecoderFile(packed), config.hidden, config.word
    step = Layers(builder, file, "step")
    values = builder.buffer(size, "POSITIONS", kept=True)
    weight, bias = file.matrix("region.weight", size, config.grid_channels), file.vector("region.bias", size)
    region = builder.matrix(weight, bias, step=file.step("region.weight"))
    builder.linear("image", Place(grid), Place(values), region, "RELU")
    share = _add_pooled_share(step, config, pooled)
    # The attention LSTM reads [word ; language ; attention], the language LSTM [language ; attention ; context].
    parts = builder.buffer(word + 3 * size, "ROWS", kept=range(word, word + 2 * size))
    words, language, attention = Place(parts), Place(parts, word), Place(parts, word + size)
    context = Place(parts, word + 2 * size)
    step.embed(config, word, words, relu=True)
    given = file.matrix("attention_lstm.weight_ih", 4 * size, 2 * size + word)
    pieces = [columns_of(given, 2 * size, 2 * size + word), columns_of(given, 0, size)]
    gates = [
        Product(side_by_side(pieces), file.step("attention_lstm.weight_ih"), words),
        step.product("attention_lstm.weight_hh", 4 * size, size, attention),
    ]
    step.lstm(gates, None, attention, image=share)
    _up_down_attention(file, config).without_idle_units().add(builder, Place(values), values, attention, context)
    given = file.matrix("language_lstm.weight_ih", 4 * size, 2 * size)
    pieces = [columns_of(given, size, 2 * size), columns_of(given, 0, size)]
    gates = [
        step.product("language_lstm.weight_hh", 4 * size, size, language),
        Product(side_by_side(pieces), file.step("language_lstm.weight_ih"), attention),
    ]
    step.lstm(gates, step.lstm_bias("language_lstm", size), language)
    return step.predict(config, language, size, word)


def _add_pooled_share(step: Layers, config: UpDownConfig, pooled: int) -> int:
    """Adds what the pooled feature brings to the gates of the attention LSTM, its bias included; returns the buffer."""
    builder, file, size = step.builder, step.file, config.hidden
    embedded, share = builder.buffer(size, "IMAGES"), builder.buffer(4 * size, "IMAGES")
    weight = file.matrix("pooled.weight", size, config.pooled_channels)
    matrix = builder.matrix(weight, file.vector("pooled.bias", size), step=file.step("pooled.weight"))
    builder.linear("images", Place(pooled), Place(embedded), matrix, "RELU")
    given = file.matrix("attention_lstm.weight_ih", 4 * size, 2 * size + config.word)
    bias = step.lstm_bias("attention_lstm", size)
    matrix = builder.matrix(columns_of(given, size, 2 * size), bias, step=file.step("attention_lstm.weight_ih"))
    builder.linear("images", Place(embedded), Place(share), matrix)
    return share


def _up_down_attention(file: DecoderFile, config: UpDownConfig) -> _Attention:
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


def _add_lstm(step: Layers, config: SoftAttentionConfig, hidden: Place) -> None:
    file, size = step.file, config.hidden
    weight = _reading_hidden_first(file, "gates", 4 * size, config)
    step.lstm([Product(weight, file.step("gates.weight"), hidden)], file.vector("gates.bias", 4 * size), hidden)


def _add_gru(step: Layers, config: SoftAttentionConfig, hidden: Place) -> None:
    """TensorFlow's GRU: the reset gate acts before the candidate's matrix."""
    builder, file, size, word = step.builder, step.file, config.hidden, config.word
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
    bias = file.vector("candidate.bias", size)
    matrix = builder.matrix(side_by_side(pieces), bias, step=file.step("candidate.weight"))
    builder.linear("step", context, Place(candidate), matrix)
    builder.add("step", "GRU_UPDATE", gates=Place(gates), candidate=Place(candidate), hidden=hidden)


def _reading_hidden_first(file: DecoderFile, name: str, rows: int, config: SoftAttentionConfig) -> Weights:
    """A matrix for [word ; context ; hidden], as the file has it, for [hidden ; context ; word]."""
    size, word = config.hidden, config.word
    weight = file.matrix(f"{name}.weight", rows, word + 2 * size)
    spans = ((word + size, word + 2 * size), (word, word + size), (0, word))
    return side_by_side([columns_of(weight, *span) for span in spans])


def _row(weight: Weights) -> NDArray[np.float32]:
    """The one row of a matrix."""
    row: NDArray[np.float32] = dense(weight)[0]
    return row
