"""Up-Down captioner (Anderson et al. 2018, arXiv 1707.07998) in the form the Supermask Pruning paper uses.

Two LSTMs take turns. The attention LSTM reads [language LSTM's last output ; pooled feature ; word]; its output asks
for the regions (additive attention); the language LSTM reads [attended regions ; attention LSTM's output], and its
output predicts the next word. All states start at zero.

Regions are a detector's or the cells of an encoder's grid; knows nothing of pixels, data sets or search. Every matrix
is read once per call, not once per time step: a pruned matrix costs one masking per training step.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.compress.fold import merge, merge_lstm_biases
from laconic.models.dropout import dropout
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.models.unrolled import Order, UnrolledAttention, UnrolledLinear, UnrolledMix, lstm_cell
from laconic.models.words import scores_of, table_of
from laconic.spec.captioners import UpDownConfig


class Memory(NamedTuple):
    """What the decoder sees of each image.

    keys (images, positions, attention) and values (images, positions, hidden) of the regions; valid (images,
    positions) or None as in Features; gates (images, 4 hidden): the pooled feature's share of the attention LSTM's.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None
    gates: Tensor

    def of(self, image: Tensor) -> "Memory":
        """One row for each of `image` (rows,)."""
        return Memory(*(None if part is None else part.index_select(0, image) for part in self))  # type: ignore


class LSTMState(NamedTuple):
    """Output and cell of one LSTM, (rows, hidden)."""

    hidden: Tensor
    cell: Tensor


class State(NamedTuple):
    """Search state: `image` (rows,) says which image of the memory a row belongs to."""

    memory: Memory
    image: Tensor
    attention: LSTMState
    language: LSTMState


class AttentionInputs(NamedTuple):
    """The attention LSTM's input matrix (4 hidden, 2 hidden + word) by what it reads."""

    language: Tensor
    pooled: Tensor
    word: Tensor


class UpDown(TorchCaptioner[State]):
    """Up-Down captioner; 53,151,538 parameters at full size (10,001 words, 2048 channels), as published."""

    config: UpDownConfig
    output_bias = "output.bias"

    def __init__(self, config: UpDownConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding, self.widen = table_of(c, c.word)
        self.pooled = nn.Linear(c.pooled_channels, c.hidden)
        self.region = nn.Linear(c.grid_channels, c.hidden)
        self.key = nn.Linear(c.hidden, c.attention)
        self.query = nn.Linear(c.hidden, c.attention)
        self.score = nn.Linear(c.attention, 1)
        self.attention_lstm = nn.LSTMCell(2 * c.hidden + c.word, c.hidden)
        self.language_lstm = nn.LSTMCell(2 * c.hidden, c.hidden)
        self.reduce, self.output = scores_of(c, c.hidden, self.embedding)

    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        """See TorchCaptioner."""
        order = Order(tokens)
        inputs = self._attention_inputs()
        memory = self._encode(features, inputs).of(order.image)
        given = F.linear(self._words(order.inputs), inputs.word) + memory.gates.index_select(0, order.row)
        step = Recurrence(self, memory, inputs)
        attention, language = self._zeros(memory)
        outputs = []
        for given_now in given.split(order.live):
            rows = len(given_now)
            attention = LSTMState(*(part[:rows] for part in attention))
            language = LSTMState(*(part[:rows] for part in language))
            attention, language = step(given_now, attention, language)
            outputs.append(language.hidden)
        return self.logits(self._dropout(torch.cat(outputs))).index_select(0, order.row_major)  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold(self) -> None:
        """At full size this empties 8,513 of 29,026 biases."""
        merge_lstm_biases(self)
        merge(self.query.bias, self.key.bias)  # scores see key + query only
        self.score.bias.zero_()  # a softmax over the regions follows

    @property
    def units(self) -> dict[str, tuple[str, ...]]:
        """See TorchCaptioner; "first" are those of the attention LSTM, "language" of the other one."""
        first, language = (" ".join(4 * [kind]) for kind in ("first", "language"))
        return {
            "embedding.weight": ("", "word"),
            "output.weight": ("", "language"),
            "pooled.weight": ("pooled", ""),
            "pooled.bias": ("pooled",),
            "region.weight": ("region", ""),
            "region.bias": ("region",),
            "key.weight": ("attention", "region"),
            "key.bias": ("attention",),
            "query.weight": ("attention", "first"),
            "query.bias": ("attention",),
            "score.weight": ("", "attention"),
            "attention_lstm.weight_ih": (first, "language pooled word"),
            "attention_lstm.weight_hh": (first, "first"),
            "attention_lstm.bias_ih": (first,),
            "attention_lstm.bias_hh": (first,),
            "language_lstm.weight_ih": (language, "region first"),
            "language_lstm.weight_hh": (language, "language"),
            "language_lstm.bias_ih": (language,),
            "language_lstm.bias_hh": (language,),
        }

    # The steps of a search

    def initial_state(self, features: Features) -> State:
        """See TorchCaptioner."""
        memory = self._encode(features, self._attention_inputs())
        rows = torch.arange(memory.keys.shape[0], device=memory.keys.device)
        return State(memory, rows, *self._zeros(memory))

    def next_logits(self, state: State, ids: Tensor) -> tuple[Tensor, State]:
        """See TorchCaptioner."""
        inputs = self._attention_inputs()
        memory = state.memory.of(state.image)
        given = F.linear(self._words(ids), inputs.word) + memory.gates
        attention, language = Recurrence(self, memory, inputs)(given, state.attention, state.language)
        logits = self.logits(self._dropout(language.hidden))
        return logits, state._replace(attention=attention, language=language)

    def select_rows(self, state: State, rows: Tensor) -> State:
        """See TorchCaptioner."""
        attention = LSTMState(*(part[rows] for part in state.attention))
        language = LSTMState(*(part[rows] for part in state.language))
        return State(state.memory, state.image[rows], attention, language)

    # Parts

    def _dropout(self, x: Tensor) -> Tensor:
        return dropout(x, self.config.dropout, self.training)

    def _words(self, ids: Tensor) -> Tensor:
        return self._dropout(F.relu(self.embed(ids)))

    def _attention_inputs(self) -> AttentionInputs:
        c = self.config
        # split, not slices: its gradient is put together in one pass over the matrix
        return AttentionInputs(*self.attention_lstm.weight_ih.split([c.hidden, c.hidden, c.word], 1))

    def _encode(self, features: Features, inputs: AttentionInputs) -> Memory:
        values = self._dropout(F.relu(self.region(features.grid)))
        pooled = self._dropout(F.relu(self.pooled(features.pooled)))
        cell = self.attention_lstm
        gates = F.linear(pooled, inputs.pooled, cell.bias_ih + cell.bias_hh)
        return Memory(self.key(values), values, features.valid, gates)

    def _zeros(self, memory: Memory) -> tuple[LSTMState, LSTMState]:
        zeros = memory.gates.new_zeros(memory.gates.shape[0], self.config.hidden)
        return LSTMState(zeros, zeros), LSTMState(zeros, zeros)


class Recurrence:
    """One time step of both LSTMs, over the first n rows of a memory. Reads every matrix once, when it is made."""

    def __init__(self, model: UpDown, memory: Memory, inputs: AttentionInputs) -> None:
        size = model.config.hidden
        attention, language = model.attention_lstm, model.language_lstm
        from_context, from_attention = language.weight_ih.split([size, size], 1)
        self.attention_from_language = UnrolledLinear(inputs.language)
        self.attention_from_attention = UnrolledLinear(attention.weight_hh)
        self.language_from_context = UnrolledLinear(from_context)
        self.language_from_attention = UnrolledLinear(from_attention)
        self.language_from_language = UnrolledLinear(language.weight_hh)
        self.language_bias = language.bias_ih + language.bias_hh
        self.query, self.query_bias = UnrolledLinear(model.query.weight), model.query.bias
        self.score, self.score_bias = UnrolledAttention(memory.keys, model.score.weight), model.score.bias
        self.mix, self.valid = UnrolledMix(memory.values), memory.valid

    def __call__(self, given: Tensor, attention: LSTMState, language: LSTMState) -> tuple[LSTMState, LSTMState]:
        """New states; given (n, 4 hidden): the share of word and pooled feature in the attention LSTM's gates."""
        gates = given + self.attention_from_language(language.hidden) + self.attention_from_attention(attention.hidden)
        attention = LSTMState(*lstm_cell(gates, attention.cell))
        context = self.mix(self.attend(attention.hidden))
        gates = self.language_from_context(context) + self.language_from_attention(attention.hidden)
        gates = gates + self.language_from_language(language.hidden) + self.language_bias
        return attention, LSTMState(*lstm_cell(gates, language.cell))

    def attend(self, hidden: Tensor) -> Tensor:
        """Weights of the regions (n, positions).

        The published form, softmax over all, times `valid`, renormalised, is a softmax over the valid ones.
        """
        scores = self.score(self.query(hidden) + self.query_bias) + self.score_bias
        if self.valid is not None:
            scores = scores.masked_fill(~self.valid[: len(hidden)], -torch.inf)
        return torch.softmax(scores, -1)
