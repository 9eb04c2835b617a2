"""Captioners as two modules with explicit state, tensors in and tensors out: what can be quantised, compiled, exported.

`Start` reads images once and gives tensors: the first `memory` of them have a row per image and stay as they are, the
others a row per caption in the making. A `Step` reads the last word of each caption and the tensors, and gives logits
and the tensors that are new. All matrices are `nn.Linear`, those that read the same time step joined into one.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.decode.search import MOST_TOKENS
from laconic.models import aoanet, object_relation, soft_attention, up_down
from laconic.models.aoanet import AoANet
from laconic.models.layers import Features
from laconic.models.object_relation import ObjectRelation
from laconic.models.soft_attention import SoftAttention
from laconic.models.transformer import Attention, DecoderLayer, sinusoids
from laconic.models.unrolled import lstm_cell
from laconic.models.up_down import UpDown
from laconic.models.words import WordLayers

Tensors = tuple[Tensor, ...]


class Step(WordLayers):
    """`forward(ids, image, word, *tensors)` -> (logits, *tensors of the captions).

    ids (rows,) the words just said; image (rows,) which image each caption is of; word (1,) how many words came before.

    Attributes:
        of_images: names of the tensors that are of the images, which come first.
        of_captions: names of those that are of the captions.
        plain: linear layers whose numbers a captioner's start looks at, so that they stay what they are.
    """

    of_images: tuple[str, ...]
    of_captions: tuple[str, ...]
    plain: ClassVar[tuple[str, ...]] = ("output",)

    @property
    def memory(self) -> int:
        """How many of the tensors are of the images."""
        return len(self.of_images)

    def words(self, model: WordLayers) -> None:
        """Takes over the layers between words and vectors."""
        self.embedding, self.widen, self.reduce, self.output = model.embedding, model.widen, model.reduce, model.output

    def empty(self, images: int) -> Tensors:
        """Tensors of the captions that hold nothing before the first word, behind those that `Start` gives."""
        return ()


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A layer of these numbers: weight (outputs, inputs)."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def attend(energy: Tensor, score: nn.Module, values: Tensor, valid: Tensor | None) -> Tensor:
    """Additive attention: the mean of values (rows, positions, size) under softmax(score(tanh(energy)))."""
    scores = score(torch.tanh(energy)).squeeze(-1)
    if valid is not None:
        scores = scores.masked_fill(~valid, -torch.inf)
    return torch.bmm(torch.softmax(scores, -1).unsqueeze(1), values).squeeze(1)


class UpDownStep(Step):
    """Tensors: keys, values, gates[, valid]; hidden and cell of the attention LSTM, then of the language LSTM."""

    def __init__(self, model: UpDown, images: int, masked: bool) -> None:
        super().__init__()
        self.masked, self.of_images = masked, ("keys", "values", "gates", *masked * ("valid_regions",))
        self.of_captions = ("attention_hidden", "attention_cell", "language_hidden", "language_cell")
        first, second = model.attention_lstm, model.language_lstm
        size = model.config.hidden
        language, _, word = first.weight_ih.split([size, size, model.config.word], 1)
        self.words(model)
        self.attention_gates = linear(torch.cat([language, word, first.weight_hh], 1))
        self.language_gates = linear(
            torch.cat([second.weight_ih, second.weight_hh], 1), second.bias_ih + second.bias_hh
        )
        self.query, self.score = model.query, model.score

    def forward(self, ids: Tensor, image: Tensor, word: Tensor, *tensors: Tensor) -> Tensors:
        keys, values, gates, *others = tensors
        valid = others.pop(0).index_select(0, image) if self.masked else None
        attention, attention_cell, language, language_cell = others
        read = torch.cat([language, F.relu(self.embed(ids)), attention], -1)
        now = self.attention_gates(read) + gates.index_select(0, image)
        attention, attention_cell = lstm_cell(now, attention_cell)
        energy = keys.index_select(0, image) + self.query(attention).unsqueeze(1)
        context = attend(energy, self.score, values.index_select(0, image), valid)
        now = self.language_gates(torch.cat([context, attention, language], -1))
        language, language_cell = lstm_cell(now, language_cell)
        return self.logits(language), attention, attention_cell, language, language_cell

    @staticmethod
    def tensors(state: up_down.State) -> Tensors:
        memory = state.memory
        valid = () if memory.valid is None else (memory.valid,)
        return (memory.keys, memory.values, memory.gates, *valid, *state.attention, *state.language)


class SoftAttentionStep(Step):
    """Tensors: keys, values[, valid]; hidden, cell, context."""

    def __init__(self, model: SoftAttention, images: int, masked: bool) -> None:
        super().__init__()
        self.masked, self.of_images = masked, ("keys", "values", *masked * ("valid_regions",))
        self.of_captions = ("hidden", "cell", "context")
        self.words(model)
        self.query, self.score = model.query, model.score
        self.gates, self.candidate = model.gates, model.candidate

    def forward(self, ids: Tensor, image: Tensor, word: Tensor, *tensors: Tensor) -> Tensors:
        keys, values, *others = tensors
        valid = others.pop(0).index_select(0, image) if self.masked else None
        hidden, cell, context = others
        words = self.embed(ids)
        gates = self.gates(torch.cat([words, context, hidden], -1))
        if self.candidate is None:
            hidden, cell = lstm_cell(gates, cell)
        else:
            reset, update = torch.sigmoid(gates).chunk(2, -1)
            new = torch.tanh(self.candidate(torch.cat([words, context, reset * hidden], -1)))
            hidden, cell = update * hidden + (1 - update) * new, cell + 0  # an output of its own
        energy = keys.index_select(0, image) + self.query(hidden).unsqueeze(1)
        context = attend(energy, self.score, values.index_select(0, image), valid)
        return self.logits(hidden), hidden, cell, context

    @staticmethod
    def tensors(state: soft_attention.State) -> Tensors:
        memory = state.memory
        valid = () if memory.valid is None else (memory.valid,)
        return (memory.keys, memory.values, *valid, state.hidden, state.cell, state.context)


class ObjectRelationStep(Step):
    """Tensors: each layer's keys and values of the regions[, bias against padding]; keys and values of the words at
    each place of a layer, (rows, heads, words, width / heads), without words at first."""

    plain = ("output", "region", "relation")

    def __init__(self, model: ObjectRelation, images: int, masked: bool) -> None:
        super().__init__()
        self.order = model.config.order
        self.masked, self.single = masked, images == 1
        self.of_images = (*_each("region", model.config.unique_layers), *masked * ("padding",))
        self.of_captions = _each("word", len(self.order))
        self.words(model)
        self.norm = model.decoder_norm
        self.layers, self.sides = model.decoder, (model.config.heads, 0, model.config.width // model.config.heads)
        self.factor = math.sqrt(model.config.width)
        self.register_buffer("places", sinusoids(torch.arange(MOST_TOKENS), model.config.width), persistent=False)

    def forward(self, ids: Tensor, image: Tensor, word: Tensor, *tensors: Tensor) -> Tensors:
        regions, words, said = tensors[: self.memory], tensors[self.memory :], []
        padding = regions[-1] if self.masked else None
        x = self.embed(ids) * self.factor + cast(Tensor, self.places).index_select(0, word)
        layers = cast("list[DecoderLayer]", self.layers)
        for place, number in enumerate(self.order):
            layer = layers[number]
            own, other = layer.attention, layer.memory_attention
            normed = layer.attention_norm(x)
            query, key, value = (_heads(own, part(normed)) for part in own.layers)
            keys = torch.cat([words[2 * place], key], 2)
            values = torch.cat([words[2 * place + 1], value], 2)
            said += [keys, values]
            x = x + own.output(_recall(query, keys, values).flatten(1))
            queries = _heads(other, other.layers[0](layer.memory_norm(x)))
            found = _look(queries, regions[2 * number], regions[2 * number + 1], padding, image, self.single)
            x = x + other.output(found.flatten(1))
            x = x + layer.feed_forward.outer(F.relu(layer.feed_forward.inner(layer.feed_forward_norm(x))))
        return (self.logits(self.norm(x)), *said)

    @staticmethod
    def tensors(state: object_relation.State) -> Tensors:
        memory = state.memory
        regions = [part for layer in memory.layers for part in layer]
        return (*regions, *(() if memory.padding is None else (memory.padding,)))

    def empty(self, images: int) -> Tensors:
        return tuple(torch.zeros(images, *self.sides) for _ in range(2 * len(self.order)))


class AoANetStep(Step):
    """Tensors: keys, values, mean[, bias against padding]; hidden, cell, context."""

    def __init__(self, model: AoANet, images: int, masked: bool) -> None:
        super().__init__()
        cell = model.lstm
        self.masked, self.single, self.heads = masked, images == 1, model.config.heads
        self.of_images = ("keys", "values", "mean", *masked * ("padding",))
        self.of_captions = ("hidden", "cell", "context")
        self.words(model)
        self.norm, self.query = model.query_norm, model.query
        self.gates = linear(torch.cat([cell.weight_ih, cell.weight_hh], 1), cell.bias_ih + cell.bias_hh)
        self.answer = linear(torch.cat([model.found.weight, model.own.weight], 1), model.found.bias)

    def forward(self, ids: Tensor, image: Tensor, word: Tensor, *tensors: Tensor) -> Tensors:
        keys, values, mean, *others = tensors
        padding = others.pop(0) if self.masked else None
        hidden, cell, context = others
        seen = mean.index_select(0, image) + context
        gates = self.gates(torch.cat([F.relu(self.embed(ids)), seen, hidden], -1))
        hidden, cell = lstm_cell(gates, cell)
        queries = self.query(self.norm(hidden))
        queries = queries.view(-1, self.heads, 1, queries.shape[1] // self.heads)
        found = _look(queries, keys, values, padding, image, self.single).flatten(1)
        context = F.glu(self.answer(torch.cat([found, hidden], -1)), -1)
        return self.logits(context), hidden, cell, context

    @staticmethod
    def tensors(state: aoanet.State) -> Tensors:
        memory = state.memory
        padding = () if memory.padding is None else (memory.padding[:, None, None],)
        return (*memory.regions, memory.mean, *padding, *state.recurrent)


def _each(kind: str, layers: int) -> tuple[str, ...]:
    """Names of the keys and values of some layers."""
    return tuple(f"{kind}_{part}_{layer}" for layer in range(layers) for part in ("keys", "values"))


def _look(queries: Tensor, keys: Tensor, values: Tensor, padding: Tensor | None, image: Tensor, single: bool) -> Tensor:
    """Attention to the regions, queries (rows, heads, 1, size); those of a single image are not copied."""
    if single:
        return F.scaled_dot_product_attention(queries.transpose(0, 2), keys, values, padding).transpose(0, 2)
    mask = None if padding is None else padding.index_select(0, image)
    keys, values = keys.index_select(0, image), values.index_select(0, image)
    return F.scaled_dot_product_attention(queries, keys, values, mask)


def _recall(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one query per row, (rows, heads, 1, size), to the words before it.

    Sums instead of matrix products: with those OpenVINO 2026.4 is wrong from eight words on.
    """
    scores = (queries * keys).sum(-1) / math.sqrt(queries.shape[-1])
    return (torch.softmax(scores, -1).unsqueeze(-1) * values).sum(2)


def _heads(attention: Attention, rows: Tensor) -> Tensor:
    """(rows, width) -> (rows, heads, 1, width / heads)"""
    return rows.view(-1, attention.heads, 1, rows.shape[1] // attention.heads)


STEPS: dict[str, Callable[..., Step]] = {
    "soft_attention": SoftAttentionStep,
    "up_down": UpDownStep,
    "object_relation": ObjectRelationStep,
    "aoanet": AoANetStep,
}


class Start(nn.Module):
    """Images to tensors. `forward(pixels)`, uint8 (images, side, side, 3); or `forward(grid, pooled[, boxes][, valid])`
    as `parts` gives them of Features."""

    def __init__(self, captioner: ImageCaptioner, given: Features | Tensor) -> None:
        super().__init__()
        self.captioner = captioner
        self.kind: Any = STEPS[captioner.config.decoder.name]
        self.pixels = isinstance(given, Tensor)
        self.names = () if isinstance(given, Tensor) else tuple(name for name, _ in _named(given))

    def forward(self, *parts: Tensor) -> Tensors:
        captioner = self.captioner
        if self.pixels:
            features = captioner.encode(parts[0])
        else:
            features = captioner.features(Features(**dict(zip(self.names, parts, strict=True))))
        return self.kind.tensors(captioner.decoder.initial_state(features))  # type: ignore[no-any-return, operator, union-attr]


def parts_of(given: Features | Tensor) -> Tensors:
    """What `Start` reads of a batch."""
    return (given,) if isinstance(given, Tensor) else tuple(part for _, part in _named(given))


def _named(features: Features) -> list[tuple[str, Tensor]]:
    found = ((name, getattr(features, name)) for name in ("grid", "pooled", "boxes", "valid"))
    return [(name, part) for name, part in found if part is not None]


def modules_of(captioner: ImageCaptioner, given: Features | Tensor) -> tuple[Start, Step]:
    """Both modules of a captioner, for batches such as `given`; in evaluation mode."""
    masked = isinstance(given, Features) and given.valid is not None
    step = STEPS[captioner.config.decoder.name](captioner.decoder, len(given), masked)
    return Start(captioner, given).eval(), step.eval()
