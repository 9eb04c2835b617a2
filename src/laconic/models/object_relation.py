"""Object Relation Transformer (Herdade et al. 2019) in the form the Supermask Pruning paper uses.

An encoder relates regions by content and by the geometry of their boxes, a decoder attends to them word by word.
Grid features are regions, too: the cells of the grid. An image is encoded once for all its captions, in training
and in search; search keeps keys and values of the words so far.

Knows nothing of pixels, data sets or search. Every matrix is read once per call.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.box_geometry import EMBEDDING, embed_geometry, relative_geometry
from laconic.models.dropout import dropout
from laconic.models.layers import Features, cell_boxes
from laconic.models.output import best_words
from laconic.models.transformer import (
    MASKED,
    DecoderLayer,
    EncoderLayer,
    KeysValues,
    LayerNorm,
    Packing,
    sinusoids,
)
from laconic.spec.captioners import ObjectRelationConfig

LEAST_RELATION = 1e-6


class Memory(NamedTuple):
    """What the decoder sees of the images: keys and values for each layer, and the logits' bias against padding."""

    layers: tuple[KeysValues, ...]
    padding: Tensor | None

    @property
    def images(self) -> int:
        return len(self.layers[0].keys)


@dataclass(frozen=True)
class State:
    """Search state: `image` (rows,) says which image of the memory a row belongs to.

    words: each layer's keys and values of the words read so far, (rows, heads, words, width / heads); empty before
    the first.
    """

    memory: Memory
    image: np.ndarray
    words: tuple[KeysValues, ...] = ()


class ObjectRelation(nn.Module):
    """Object Relation Transformer; parameters as in the paper (55,443,777 at full size, vocabulary 10,001)."""

    reads_pooled = False

    def __init__(self, config: ObjectRelationConfig) -> None:
        super().__init__()
        c = self.config = config
        layer = (c.width, c.heads, c.feed_forward, c.dropout)
        self.region = nn.Linear(c.grid_channels, c.width)
        self.relation = nn.ModuleList(nn.Linear(EMBEDDING, c.heads) for _ in range(c.layers))
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(c.layers))
        self.encoder_norm = LayerNorm(c.width)
        self.embedding = nn.Embedding(c.vocabulary, c.width)
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(c.layers))
        self.decoder_norm = LayerNorm(c.width)
        self.output = nn.Linear(c.width, c.vocabulary)
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
        """Logits of every next word under teacher forcing.

        Args:
            features: of N images.
            tokens: (N, S, T) S captions per image, <bos> first, padded with 0 behind <eos>.

        Returns:
            (M, vocabulary): one row for each non-padding entry of `tokens[..., 1:]`, in row-major order.
        """
        images, captions, length = tokens.shape
        words = Packing.of(tokens[..., 1:].flatten(0, 1) != 0)
        positions = torch.arange(length - 1, device=tokens.device).expand(images * captions, -1)
        x = self._embed(words.pack(tokens[..., :-1].flatten(0, 1)), words.pack(positions))
        x, _ = self._decode(x, words, (), words.regrouped(images), self._encode(features))
        return self.output(x)  # type: ignore[no-any-return]

    # The Captioner protocol of laconic.decode.search

    @torch.inference_mode()
    def start(self, images: Features) -> State:
        """One row per image."""
        return State(self._encode(images), np.arange(len(images)))

    @torch.inference_mode()
    def step(self, state: State, tokens: np.ndarray, k: int | None) -> tuple[np.ndarray, np.ndarray, State]:
        """The k best next words of each row after `tokens` (rows,): log-probabilities, ids, new state."""
        ids = torch.as_tensor(tokens, device=self.output.bias.device)
        read = state.words[0].keys.shape[2] if state.words else 0
        x = self._embed(ids, torch.full_like(ids, read))
        images = by_image(state.image, state.memory.images, ids.device)
        x, words = self._decode(x, Packing(len(ids), 1), state.words, images, state.memory)
        return *best_words(self.output(x), k), replace(state, words=words)

    @torch.inference_mode()
    def select(self, state: State, rows: np.ndarray) -> State:
        """Repeats, drops or reorders rows."""
        index = torch.as_tensor(rows, device=self.output.bias.device)
        return replace(state, image=state.image[rows], words=tuple(layer.select(index) for layer in state.words))

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
        for layer, relation in zip(self.encoder, self.relation, strict=True):
            bias = log_relation(relation, geometry)
            x = layer(x, regions, bias if padding is None else bias + padding)
        x = self.encoder_norm(x)
        readers = cast(Iterable[DecoderLayer], self.decoder)
        return Memory(tuple(reader.memory_attention.remember(x, regions) for reader in readers), padding)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = self.embedding(ids) * math.sqrt(self.config.width) + sinusoids(positions, self.config.width)
        return dropout(x, self.config.dropout, self.training)

    def _decode(
        self, x: Tensor, words: Packing, past: tuple[KeysValues, ...], images: Packing, memory: Memory
    ) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """Embedded words (rows, width) to what the output layer reads, and all keys and values of the words."""
        seen = []
        for layer, before, looked_at in zip(self.decoder, past or self._no_words, memory.layers, strict=True):
            x, now = layer(x, words, before, images, looked_at, memory.padding)
            seen.append(now)
        return self.decoder_norm(x), tuple(seen)

    @property
    def _no_words(self) -> tuple[None, ...]:
        return (None,) * self.config.layers


def log_relation(relation: nn.Module, geometry: Tensor) -> Tensor:
    """Embedded geometry (images, P, P, EMBEDDING) as a bias on attention logits, (images, heads, P, P).

    Not in bfloat16, whatever autocast says: the logarithm's slope at weak relations makes their rounding errors the
    gradient (cosine to the true one 0.15 at times; in float32 0.96).
    """
    with torch.autocast(geometry.device.type, enabled=False):
        return relation(geometry).clamp(min=LEAST_RELATION).log().permute(0, 3, 1, 2)  # type: ignore[no-any-return]


def by_image(image: np.ndarray, images: int, device: torch.device) -> Packing:
    """Search rows by image, so that rows of one image look at one memory instead of a copy each."""
    order = np.argsort(image, kind="stable")
    counts = np.bincount(image, minlength=images)
    place = np.empty_like(order)
    place[order] = np.arange(len(image)) - (np.cumsum(counts) - counts)[image[order]]
    length = int(counts.max())
    return Packing(images, length, torch.from_numpy(image * length + place).to(device))
