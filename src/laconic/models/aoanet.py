"""AoANet (Huang et al. 2019, arXiv 1908.06954): attention on attention, in the form of the published code.

Attention on attention (equations 3 to 5) asks whether what attention found is what was asked for: of [found ; query]
it makes information and a gate, and their product is the answer. In the refiner regions look at each other that way.
In the decoder an LSTM reads [word ; mean of the refined regions + context], and what its output finds among the
regions, gated, is the context: it predicts the next word, and the next step reads it.

Where the published code differs from the paper, it is followed: norms come before attention, and one at the end of the
refiner; the refiner's gates read the normed regions themselves, the decoder's the LSTM's output; words go through a
ReLU. Its biases of keys, to which a softmax is blind, are not made. Its matrices that read or make two things at once
are two: `found` and `own` of [found ; query], `key` and `value` of the regions.

Regions are a detector's or the cells of an encoder's grid; knows nothing of pixels, data sets or search. Every matrix
is read once per call, not once per time step: a pruned matrix costs one masking per training step.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.compress.fold import fold_attention_biases, fold_layer_norm, merge_lstm_biases
from laconic.models.dropout import dropout
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.models.transformer import (
    MASKED,
    Attention,
    EncoderLayer,
    FeedForward,
    KeysValues,
    LayerNorm,
    Packing,
    split_heads,
)
from laconic.models.unrolled import Order, UnrolledLinear, UnrolledMix, lstm_cell
from laconic.models.words import scores_of, table_of
from laconic.spec.captioners import AoANetConfig


class Memory(NamedTuple):
    """What the decoder sees of each image.

    regions: keys and values, each (images, heads, positions, width / heads). mean: of the refined regions (images,
    width). padding: added to the logits of positions, (images, positions); None where all are valid.

    The mean's share of the gates is not kept: with mean + context as one input of the matrix that reads them both, as
    published, calibration (laconic.compress.quantized) sees what that matrix is multiplied with, at no greater cost.
    """

    regions: KeysValues
    mean: Tensor
    padding: Tensor | None

    def of(self, image: Tensor) -> "Memory":
        """One row for each of `image` (rows,)."""
        padding = None if self.padding is None else self.padding.index_select(0, image)
        return Memory(self.regions.select(image), self.mean.index_select(0, image), padding)


class Recurrent(NamedTuple):
    """What a step hands to the next: output and cell of the LSTM, and the context, each (rows, width)."""

    hidden: Tensor
    cell: Tensor
    context: Tensor

    def select(self, rows: Tensor | slice) -> "Recurrent":
        return Recurrent(*(part[rows] for part in self))


class State(NamedTuple):
    """Search state: `image` (rows,) says which image of the memory a row belongs to."""

    memory: Memory
    image: Tensor
    recurrent: Recurrent


class AttentionOnAttention(Attention):
    """Attention whose answer is information times a gate, both made of [found ; query] (equations 3 to 5).

    Rows of `output` and `own`: information, then gate. Dropout `gate_dropout` on what the two read.
    """

    def __init__(self, width: int, heads: int, dropout: float, gate_dropout: float) -> None:
        super().__init__(width, heads, dropout, outputs=2 * width, key_bias=False)
        self.own = nn.Linear(width, 2 * width, bias=False)
        self.gate_dropout = gate_dropout
        reset_as_one(self.output, self.own)

    def forward(
        self, rows: Tensor, packing: Packing, seen: KeysValues, bias: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """(rows, width) -> the same; arguments as in Attention."""
        found = self.find(rows, packing, seen, bias, causal)
        found, own = (dropout(part, self.gate_dropout, self.training) for part in (found, rows))
        return F.glu(self.output(found) + self.own(own), -1)

    @torch.no_grad()
    def fold(self, norm: LayerNorm) -> None:
        """See Attention; a constant of the query goes to `output` as well."""
        self.output.bias.add_(self.own.weight @ norm.bias)
        fold_layer_norm(norm, [self.query, self.value], [self.key, self.own])
        fold_attention_biases(self.key, self.value, self.output)


class AoANet(TorchCaptioner[State]):
    """AoANet; 85,555,472 parameters at full size (9,488 words, 2048 channels, width 1024, 6 layers): as published, but
    for 7,168 biases of keys."""

    config: AoANetConfig
    output_bias = "output.bias"

    def __init__(self, config: AoANetConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding, self.widen = table_of(c, c.width)
        self.region = nn.Linear(c.grid_channels, c.width)
        self.refiner = nn.ModuleList(_refiner_layer(c) for _ in range(c.layers))
        self.refiner_norm = LayerNorm(c.width) if c.layers else None
        self.key = nn.Linear(c.width, c.width, bias=False)
        self.value = nn.Linear(c.width, c.width)
        self.lstm = nn.LSTMCell(2 * c.width, c.width)
        self.query_norm = LayerNorm(c.width)
        self.query = nn.Linear(c.width, c.width)
        self.found = nn.Linear(c.width, 2 * c.width)
        self.own = nn.Linear(c.width, 2 * c.width, bias=False)
        self.reduce, self.output = scores_of(c, c.width, self.embedding)
        reset_as_one(self.found, self.own)

    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        """See TorchCaptioner."""
        order = Order(tokens)
        memory = self._encode(features).of(order.image)
        from_words, step = self._recurrence(order.inputs, memory)
        recurrent = self._zeros(memory)
        contexts = []
        for from_word in from_words.split(order.live):
            recurrent = step(from_word, recurrent.select(slice(len(from_word))))
            contexts.append(recurrent.context)
        return self.logits(self._dropout(torch.cat(contexts))).index_select(0, order.row_major)  # type: ignore[no-any-return]

    def fold(self) -> None:
        """All of it is exact. At full size this empties 26,624 of 63,760 biases and norm parameters, of which 7,168
        gains become 1. The gain of the refiner's last norm stays: the matrix that reads the mean of what it makes
        reads the context, too."""
        for layer in cast(Iterable[EncoderLayer], self.refiner):
            layer.fold()
        self._fold_last_bias()
        fold_attention_biases(self.key, self.value, self.found)
        fold_layer_norm(self.query_norm, [self.query])
        merge_lstm_biases(self)

    # The steps of a search

    def initial_state(self, features: Features) -> State:
        """See TorchCaptioner."""
        memory = self._encode(features)
        return State(memory, torch.arange(memory.mean.shape[0], device=memory.mean.device), self._zeros(memory))

    def next_logits(self, state: State, ids: Tensor) -> tuple[Tensor, State]:
        """See TorchCaptioner."""
        from_words, step = self._recurrence(ids, state.memory.of(state.image))
        recurrent = step(from_words, state.recurrent)
        return self.logits(self._dropout(recurrent.context)), state._replace(recurrent=recurrent)

    def select_rows(self, state: State, rows: Tensor) -> State:
        """See TorchCaptioner."""
        return State(state.memory, state.image[rows], state.recurrent.select(rows))

    # Parts

    def _dropout(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)

    def _encode(self, features: Features) -> Memory:
        """An image of n valid positions gives what its n positions alone would give."""
        regions, padding = Packing(*features.grid.shape[:2]), None
        counts: Tensor | int = features.grid.shape[1]
        if features.valid is not None:
            regions = Packing.of(features.valid)
            padding = torch.where(features.valid, 0.0, MASKED)
            counts = features.valid.sum(1, keepdim=True).clamp(min=1)
        x = self._dropout(F.relu(self.region(regions.pack(features.grid))))
        bias = None if padding is None else padding[:, None, None]
        for layer in self.refiner:
            x = layer(x, regions, bias)
        if self.refiner_norm is not None:
            x = self.refiner_norm(x)
        seen = KeysValues(*(split_heads(part(x), regions, self.config.heads) for part in (self.key, self.value)))
        return Memory(seen, regions.pad(x).sum(1) / counts, padding)

    def _recurrence(self, words: Tensor, memory: Memory) -> tuple[Tensor, "Recurrence"]:
        """The share of words (n,) in the gates, (n, 4 width), biases included, and the function for one step."""
        c, cell = self.config, self.lstm
        # split, not slices: its gradient is put together in one pass over the matrix
        from_word, from_context = cell.weight_ih.split([c.width, c.width], 1)
        embedded = self._dropout(F.relu(self.embed(words)))
        given = F.linear(embedded, from_word, cell.bias_ih + cell.bias_hh)
        return given, Recurrence(self, memory, from_context)

    def _zeros(self, memory: Memory) -> Recurrent:
        zeros = torch.zeros_like(memory.mean)
        return Recurrent(zeros, zeros, zeros)

    @torch.no_grad()
    def _fold_last_bias(self) -> None:
        """That of the refiner's last norm: keys do not see it, it adds to all values, and to the mean."""
        if self.refiner_norm is None:
            return
        bias = self.refiner_norm.bias
        self.value.bias.add_(self.value.weight @ bias)
        self.lstm.bias_ih.add_(self.lstm.weight_ih[:, self.config.width :] @ bias)
        bias.zero_()


class Recurrence:
    """One time step, over the first n rows of a memory. Reads every matrix once, when it is made."""

    def __init__(self, model: AoANet, memory: Memory, from_context: Tensor) -> None:
        self.config, self.training = model.config, model.training
        self.from_context, self.from_hidden = UnrolledLinear(from_context), UnrolledLinear(model.lstm.weight_hh)
        self.norm, self.query, self.query_bias = model.query_norm, UnrolledLinear(model.query.weight), model.query.bias
        self.found, self.own = UnrolledLinear(model.found.weight), UnrolledLinear(model.own.weight)
        self.gate_bias = model.found.bias
        self.mean, self.padding = memory.mean, memory.padding
        keys, values = (part.flatten(0, 1) for part in memory.regions)  # heads are rows of their own
        self.score, self.mix = UnrolledMix(keys.transpose(1, 2)), UnrolledMix(values)

    def __call__(self, from_word: Tensor, before: Recurrent) -> Recurrent:
        """The state after a word; from_word (n, 4 width): its share of the gates."""
        seen = self.mean[: len(from_word)] + dropout(before.context, self.config.dropout, self.training)
        gates = from_word + self.from_context(seen) + self.from_hidden(before.hidden)
        hidden, cell = lstm_cell(gates, before.cell)
        answer = self.found(self.attend(hidden)) + self.own(hidden) + self.gate_bias
        return Recurrent(hidden, cell, F.glu(answer, -1))

    def attend(self, hidden: Tensor) -> Tensor:
        """What LSTM outputs (n, width) find among the regions: all heads' means of values, (n, width)."""
        rows, heads = len(hidden), self.config.heads
        queries = self.query(self.norm(hidden)) + self.query_bias
        queries = queries.view(rows * heads, -1) / math.sqrt(queries.shape[1] // heads)
        scores = self.score(queries).view(rows, heads, -1)
        if self.padding is not None:
            scores = scores + self.padding[:rows, None]
        weights = dropout(torch.softmax(scores, -1), self.config.attention_dropout, self.training)
        return self.mix(weights.flatten(0, 1)).view(rows, -1)


def _refiner_layer(c: AoANetConfig) -> EncoderLayer:
    attention = AttentionOnAttention(c.width, c.heads, c.attention_dropout, c.gate_dropout)
    feed_forward = FeedForward(c.width, c.feed_forward, c.refiner_dropout) if c.feed_forward else None
    return EncoderLayer(c.width, attention, feed_forward, c.refiner_dropout)


def reset_as_one(*layers: nn.Linear) -> None:
    """Draws weights and biases as PyTorch does for one layer that reads what all of them read, side by side."""
    bound = 1 / math.sqrt(sum(layer.in_features for layer in layers))
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound)
