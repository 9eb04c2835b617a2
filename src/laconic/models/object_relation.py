"""Object Relation Transformer (Herdade et al. 2019) in the form the Supermask Pruning paper uses.

An encoder relates regions by content and by the geometry of their boxes, a decoder attends to them word by word.
Grid features are regions, too: the cells of the grid. An image is encoded once for all its captions, in training
and in search; search keeps keys and values of the words so far.

Layers may share their weights, and attentions theirs among queries, keys and values (ACORT, Tan et al. 2022, arXiv
2202.05451): a *layer* below is a module, a *place* is where one stands in the order that an input passes them. Keys and
values of words are kept for each place, so that a search is what teacher forcing is. The published code keeps them for
each module, where places that share one see each other's words.

Knows nothing of pixels, data sets or search. Every matrix is read once per call, or once at each place of its layer.
"""

import math
from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.compress.fold import fold_layer_norm
from laconic.models.box_geometry import EMBEDDING, embed_geometry, relative_geometry
from laconic.models.dropout import dropout
from laconic.models.layers import Features, cell_boxes
from laconic.models.torch_captioner import TorchCaptioner
from laconic.models.transformer import (
    ATTENTIONS,
    MASKED,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    KeysValues,
    LayerNorm,
    Packing,
    sinusoids,
)
from laconic.models.words import fold_into_scores, scores_of, table_of
from laconic.spec.captioners import ObjectRelationConfig
from laconic.spec.tokens import PAD

LEAST_RELATION = 1e-6


class Memory(NamedTuple):
    """What the decoder sees of the images: keys and values for each layer, and the logits' bias against padding."""

    layers: tuple[KeysValues, ...]
    padding: Tensor | None

    @property
    def images(self) -> int:
        return len(self.layers[0].keys)


class State(NamedTuple):
    """Search state: `image` (rows,) says which image of the memory a row belongs to.

    words: keys and values at each place of the words read so far, (rows, heads, words, width / heads); empty before the
    first.
    """

    memory: Memory
    image: Tensor
    words: tuple[KeysValues, ...] = ()


class ObjectRelation(TorchCaptioner[State]):
    """Object Relation Transformer; parameters as in the paper (55,443,777 at full size, vocabulary 10,001)."""

    config: ObjectRelationConfig
    output_bias = "output.bias"

    def __init__(self, config: ObjectRelationConfig) -> None:
        super().__init__()
        c = self.config = config
        self.region = nn.Linear(c.grid_channels, c.width)
        self.relation = nn.ModuleList(nn.Linear(EMBEDDING, c.heads) for _ in range(c.unique_layers))
        self.encoder = nn.ModuleList(_encoder_layer(c) for _ in range(c.unique_layers))
        self.encoder_norm = LayerNorm(c.width)
        self.embedding, self.widen = table_of(c, c.width)
        sizes = (c.width, c.heads, c.feed_forward, c.dropout, c.share_attention)
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(c.unique_layers))
        self.decoder_norm = LayerNorm(c.width)
        self.reduce, self.output = scores_of(c, c.width, self.embedding)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform matrices, but for the regions' input layer; PyTorch's own initial values elsewhere."""
        each_head = math.sqrt(6 / (EMBEDDING + 1))  # Xavier's bound of 64 x 1: a row of `relation` is one head's own
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1 or name.startswith("region."):
                continue
            if name.startswith("relation."):
                nn.init.uniform_(parameter, -each_head, each_head)
            else:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        """See TorchCaptioner."""
        images, captions, length = tokens.shape
        words = Packing.of(tokens[..., 1:].flatten(0, 1) != PAD)
        positions = torch.arange(length - 1, device=tokens.device).expand(images * captions, -1)
        x = self._embed(words.pack(tokens[..., :-1].flatten(0, 1)), words.pack(positions))
        x, _ = self._decode(x, words, (), words.regrouped(images), self._encode(features))
        return self.logits(x)

    def fold(self) -> None:
        """At full size this empties 34,816 of 110,913 biases and norm parameters, of which 16,384 gains become 1. Where
        queries and keys share a layer, norms of the decoder's attention to the image stay, and that of the memory."""
        for encoder in cast(Iterable[EncoderLayer], self.encoder):
            encoder.fold()
        decoders = list(cast(Iterable[DecoderLayer], self.decoder))
        readers = [reader for layer in decoders for reader in layer.fold()]
        if readers:
            fold_layer_norm(self.encoder_norm, readers)
        for layer in decoders:
            layer.memory_attention.fold_biases()
        fold_into_scores(self.decoder_norm, self.reduce, self.output, tied=self.config.tied)

    # The steps of a search

    def initial_state(self, features: Features) -> State:
        """See TorchCaptioner."""
        return State(self._encode(features), torch.arange(features.grid.shape[0], device=self.output.bias.device))

    def next_logits(self, state: State, ids: Tensor) -> tuple[Tensor, State]:
        """See TorchCaptioner."""
        read = state.words[0].keys.shape[2] if state.words else 0
        x = self._embed(ids, torch.full_like(ids, read))
        images = by_image(state.image, state.memory.images)
        x, words = self._decode(x, Packing(len(ids), 1), state.words, images, state.memory)
        return self.logits(x), state._replace(words=words)

    def select_rows(self, state: State, rows: Tensor) -> State:
        """See TorchCaptioner."""
        return state._replace(image=state.image[rows], words=tuple(layer.select(rows) for layer in state.words))

    # Parts

    def _encode(self, features: Features) -> Memory:
        groups, positions = features.grid.shape[:2]
        regions, padding = Packing(groups, positions), None
        if features.valid is not None:
            regions = Packing.of(features.valid)
            padding = torch.where(features.valid, 0.0, MASKED)[:, None, None, :]
        x = F.relu(self.region(regions.pack(features.grid)))
        x = dropout(x, self.config.input_dropout, self.training)
        boxes = cell_boxes(positions)[None] if features.boxes is None else features.boxes
        geometry = embed_geometry(relative_geometry(boxes.to(self.region.bias), self.config.plus_one))
        for number, places in groupby(self.config.order):
            bias = log_relation(self.relation[number], geometry)
            bias = bias if padding is None else bias + padding
            for _ in places:
                x = self.encoder[number](x, regions, bias)
        x = self.encoder_norm(x)
        readers = cast(Iterable[DecoderLayer], self.decoder)
        return Memory(tuple(reader.memory_attention.remember(x, regions) for reader in readers), padding)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = self.embed(ids) * math.sqrt(self.config.width) + sinusoids(positions, self.config.width)
        return dropout(x, self.config.dropout, self.training)

    def _decode(
        self, x: Tensor, words: Packing, past: tuple[KeysValues, ...], images: Packing, memory: Memory
    ) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """Embedded words (rows, width) to what the output layer reads, and all keys and values of the words."""
        seen = []
        for place, number in enumerate(self.config.order):
            before = past[place] if past else None
            x, now = self.decoder[number](x, words, before, images, memory.layers[number], memory.padding)
            seen.append(now)
        return self.decoder_norm(x), tuple(seen)


def _encoder_layer(c: ObjectRelationConfig) -> EncoderLayer:
    attention = ATTENTIONS[c.share_attention](c.width, c.heads, c.dropout)
    return EncoderLayer(c.width, attention, FeedForward(c.width, c.feed_forward, c.dropout), c.dropout)


def log_relation(relation: nn.Module, geometry: Tensor) -> Tensor:
    """Embedded geometry (images, P, P, EMBEDDING) as a bias on attention logits, (images, heads, P, P).

    Not in bfloat16, whatever autocast says: the logarithm's slope at weak relations makes their rounding errors the
    gradient (cosine to the true one 0.15 at times; in float32 0.96).
    """
    with torch.autocast(geometry.device.type, enabled=False):
        return relation(geometry).clamp(min=LEAST_RELATION).log().permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def by_image(image: Tensor, images: int) -> Packing:
    """Search rows by image, so that rows of one image look at one memory instead of a copy each."""
    order = image.argsort(stable=True)
    counts = image.bincount(minlength=images)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image[order]]
    length = int(counts.max())
    return Packing(images, length, image * length + place)
