"""Soft-Attention captioner (Xu et al. 2015) in the form the Supermask Pruning paper uses.

Each step feeds [word ; previous context] to an LSTM or GRU, attends over the grid with the new output (additive
attention, separate key and value projections), and predicts the next word from the output alone; the context goes
into the next step. Initial hidden state: a projection of the pooled feature; the LSTM's cell starts at zero.

Knows nothing of pixels, data sets or search. Every matrix is read once per call, not once per time step: a pruned
matrix costs one masking per training step.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.dropout import dropout
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.models.unrolled import Order, UnrolledAttention, UnrolledLinear, UnrolledMix, lstm_cell
from laconic.models.words import scores_of, table_of
from laconic.spec.captioners import SoftAttentionConfig


class Memory(NamedTuple):
    """What the decoder sees of an image: keys and values, (images, positions, hidden); valid (images, positions), None
    where all positions are."""

    keys: Tensor
    values: Tensor
    valid: Tensor | None

    def attend(self, scores: Tensor, image: Tensor) -> Tensor:
        """Attention maps (rows, positions) of rows that look at `image` (rows,)."""
        if self.valid is not None:
            scores = scores.masked_fill(~self.valid[image], -torch.inf)
        return torch.softmax(scores, -1)


class State(NamedTuple):
    """Search state: `image` (rows,) says which image of the memory a row belongs to.

    hidden, cell, context: (rows, hidden); a GRU leaves `cell` untouched.
    """

    memory: Memory
    image: Tensor
    hidden: Tensor
    cell: Tensor
    context: Tensor


class SoftAttention(TorchCaptioner[State]):
    """Soft-Attention captioner; parameters as listed in the paper (11,923,178 at full size with an LSTM)."""

    config: SoftAttentionConfig
    output_bias = "output.bias"

    def __init__(self, config: SoftAttentionConfig) -> None:
        super().__init__()
        c = self.config = config
        self.embedding, self.widen = table_of(c, c.word)
        self.initial = nn.Linear(c.pooled_channels, c.hidden, bias=False)
        self.key = nn.Linear(c.grid_channels, c.hidden, bias=False)
        self.value = nn.Linear(c.grid_channels, c.hidden, bias=False)
        self.query = nn.Linear(c.hidden, c.hidden, bias=False)
        self.score = nn.Linear(c.hidden, 1, bias=False)
        inputs = c.word + 2 * c.hidden  # [word ; context ; hidden]
        gates = 4 if c.cell == "lstm" else 2
        self.gates = nn.Linear(inputs, gates * c.hidden)
        self.candidate = nn.Linear(inputs, c.hidden) if c.cell == "gru" else None
        self.reduce, self.output = scores_of(c, c.hidden, self.embedding)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-uniform matrices, embedding included; zero biases, but one for the LSTM's forget gate (its
        forget bias) and for both GRU gates, as TensorFlow's cells have it."""
        for module in self.children():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        hidden = self.config.hidden
        with torch.no_grad():
            if self.config.cell == "lstm":
                self.gates.bias[hidden : 2 * hidden] = 1.0
            else:
                self.gates.bias.fill_(1.0)

    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        """See TorchCaptioner."""
        order = Order(tokens)
        memory, hidden, cell = self._encode(features)
        hidden, cell = hidden[order.image], cell[order.image]
        attention = UnrolledAttention(memory.keys[order.image], self.score.weight)
        mix = UnrolledMix(memory.values[order.image])
        query = UnrolledLinear(self.query.weight)
        words = dropout(self.embed(order.inputs), self.config.dropout, self.training)
        from_words, step = self._recurrence(words)
        context = torch.zeros_like(hidden)
        outputs = []
        for t, from_word in enumerate(from_words.split(order.live)):
            rows = order.live[t]
            hidden, cell = step(from_word, context[:rows], hidden[:rows], cell[:rows])
            output = dropout(hidden, self.config.dropout, self.training)
            outputs.append(output)
            rows = order.live[t + 1] if t + 1 < len(order.live) else 0
            if rows:
                weights = memory.attend(attention(query(output[:rows])), order.image[:rows])
                weights = dropout(weights, self.config.attention_dropout, self.training)
                context = dropout(mix(weights), self.config.dropout, self.training)
        return self.logits(torch.cat(outputs)).index_select(0, order.row_major)  # type: ignore[no-any-return]

    def fold(self) -> None:
        """There is nothing that another parameter could take over."""

    @property
    def units(self) -> dict[str, tuple[str, ...]]:
        """See TorchCaptioner."""
        inputs, gru = "word context hidden", self.candidate is not None
        gates = "hidden hidden" if gru else "hidden hidden hidden hidden"
        return {
            "embedding.weight": ("", "word"),
            "output.weight": ("", "hidden"),
            "initial.weight": ("hidden", ""),
            "key.weight": ("attention", ""),
            "value.weight": ("context", ""),
            "query.weight": ("attention", "hidden"),
            "score.weight": ("", "attention"),
            "gates.weight": (gates, inputs),
            "gates.bias": (gates,),
            **({"candidate.weight": ("hidden", inputs), "candidate.bias": ("hidden",)} if gru else {}),
        }

    # The steps of a search

    def initial_state(self, features: Features) -> State:
        """See TorchCaptioner."""
        memory, hidden, cell = self._encode(features)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return State(memory, rows, hidden, cell, torch.zeros_like(hidden))

    def next_logits(self, state: State, ids: Tensor) -> tuple[Tensor, State]:
        """See TorchCaptioner."""
        from_words, step = self._recurrence(self.embed(ids))
        hidden, cell = step(from_words, state.context, state.hidden, state.cell)
        energy = torch.tanh_(state.memory.keys[state.image] + self.query(hidden).unsqueeze(1))
        weights = state.memory.attend(self.score(energy).squeeze(-1), state.image)
        context = torch.bmm(weights.unsqueeze(1), state.memory.values[state.image]).squeeze(1)
        return self.logits(hidden), state._replace(hidden=hidden, cell=cell, context=context)

    def select_rows(self, state: State, rows: Tensor) -> State:
        """See TorchCaptioner."""
        return State(
            state.memory,
            state.image[rows],
            state.hidden[rows],
            state.cell[rows],
            state.context[rows],
        )

    # Parts

    def _encode(self, features: Features) -> tuple[Memory, Tensor, Tensor]:
        memory = Memory(self.key(features.grid), self.value(features.grid), features.valid)
        hidden = self.initial(features.pooled)
        return memory, hidden, torch.zeros_like(hidden)

    def _recurrence(self, words: Tensor) -> tuple[Tensor, "Recurrence"]:
        """The words' share of the gates (words, ...) and the function for one step."""
        matrix = self.gates.weight
        size = words.shape[-1]
        from_words = F.linear(words, matrix[:, :size], self.gates.bias)
        if self.candidate is None:
            return from_words, LSTM(UnrolledLinear(matrix[:, size:]))
        candidate = self.candidate.weight
        share = F.linear(words, candidate[:, :size], self.candidate.bias)
        return torch.cat([from_words, share], -1), GRU(
            UnrolledLinear(matrix[:, size:]), UnrolledLinear(candidate[:, size:])
        )


class LSTM(NamedTuple):
    """One LSTM step, gates in the order input, forget, candidate, output."""

    matrix: UnrolledLinear  # (4 hidden, 2 hidden), for [context ; hidden]

    def __call__(self, from_word: Tensor, context: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        return lstm_cell(from_word + self.matrix(torch.cat([context, hidden], -1)), cell)


class GRU(NamedTuple):
    """One GRU step as TensorFlow's GRUCell: the reset gate acts before the candidate's matrix."""

    matrix: UnrolledLinear  # (2 hidden, 2 hidden): reset, update
    candidate: UnrolledLinear  # (hidden, 2 hidden)

    def __call__(self, from_word: Tensor, context: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        width = 2 * hidden.shape[-1]
        gates = from_word[:, :width] + self.matrix(torch.cat([context, hidden], -1))
        r, u = torch.sigmoid(gates).chunk(2, -1)
        new = self.candidate(torch.cat([context, r * hidden], -1))
        return u * hidden + (1 - u) * torch.tanh(from_word[:, width:] + new), cell


Recurrence = LSTM | GRU
