"""How the Object Relation Transformer becomes programs.

`image` runs the transformer's encoder and keeps keys and values of what it makes of the positions, for each layer of
the decoder; `step` reads one word. A residual is a product that is added to what is there: LINEAR that starts
FROM_SELF. Where the cells of a grid lie is known beforehand, and so is all that follows from it. What layers or
projections share lies in the plan once; words are kept for each place where a layer stands.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.errors import ConfigError
from laconic.runtime.decoder_layers import DecoderFile, Layers
from laconic.runtime.matrices import dense, pack_matrix
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.runtime.relations import EMBEDDING, cell_boxes, embed_pairs, log_relation
from laconic.spec.captioners import PROJECTIONS, ObjectRelationConfig
from laconic.spec.encoders import cells_of
from laconic.spec.model import REGIONS
from laconic.spec.packed import CaptionerSpec
from laconic.store import Packed

MOST_WORDS = 500  # of a caption: as laconic.decode.search.MOST_TOKENS
MOST_HEAD = 1024  # numbers per word of one head: as native/word_attention.h
MOST_CELLS = 64  # of a grid whose relations lie in the plan: 33 kB for each head of each layer at most
VECTOR = 16  # floats that vectors may read behind the last one


def plan_object_relation(
    builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int
) -> dict[str, int]:
    """Adds the programs `image` and `step`. Returns the buffers of the header that they need: the logits', and one that
    is made from boxes. ConfigError for heads that are wider than the engine takes."""
    config = spec.captioner
    if not isinstance(config, ObjectRelationConfig):
        raise TypeError(f"not an object_relation captioner: {config}")
    if config.width // config.heads > MOST_HEAD:
        raise ConfigError(
            f"object_relation: the engine takes heads of {MOST_HEAD} numbers at most, and width = {config.width} with "
            f"heads = {config.heads} has {config.width // config.heads}; caption with torch"
        )
    encoder = spec.model.encoder
    cells = None if encoder.name == REGIONS else cells_of(encoder)
    layers = Layers(builder, DecoderFile(packed), "image")
    relations = _relations(layers, config, cells)
    memory = _encode(layers, config, Place(grid), relations)
    found = _decode(replace(layers, program="step"), config, memory)
    return found if relations.pairs == NONE or cells else {**found, "boxes": relations.pairs}


@dataclass(frozen=True)
class _Relations:
    """The bias on attention among positions: for each head of each layer a row of the buffer `pairs`, or one at
    `constant` in the arena. One of the two is NONE."""

    pairs: int
    constant: int
    positions: int = 0

    def of_layer(self, layer: int, heads: int) -> dict[str, int]:
        """Arguments of ATTEND_RELATED."""
        row = layer * heads
        if self.pairs == NONE:
            return {"relation": NONE, "relation_row": 0, "constant": self.constant + 4 * row * self.positions**2}
        return {"relation": self.pairs, "relation_row": row, "constant": NONE}


def _relations(w: Layers, c: ObjectRelationConfig, cells: int | None) -> _Relations:
    """`cells`: of the grid; None where regions are told where they lie."""
    builder, names = w.builder, [f"relation.{layer}" for layer in range(c.unique_layers)]
    weights = np.concatenate([dense(w.file.matrix(f"{name}.weight", c.heads, EMBEDDING)) for name in names])
    bias = np.concatenate([w.file.vector(f"{name}.bias", c.heads) for name in names])
    boxes = None if cells is None else cell_boxes(cells)
    if boxes is not None and len(boxes) <= MOST_CELLS:
        known = log_relation(weights @ embed_pairs(boxes, c.plus_one) + bias[:, None])
        padded = np.concatenate([known.reshape(-1), np.zeros(VECTOR, np.float32)])
        return _Relations(NONE, builder.constant(padded), len(boxes))
    embedded, pairs = builder.buffer(EMBEDDING, "PAIRS"), builder.buffer(len(weights), "PAIRS")
    builder.add(w.program, "RELATE", y=embedded, boxes=builder.constant(boxes), plus_one=int(c.plus_one))
    matrix = builder.add_matrix(pack_matrix(weights), bias)  # exact: small, and the logarithm makes errors large
    builder.linear(w.program, Place(embedded), Place(pairs), matrix, "LOG_RELATION")
    return _Relations(pairs, NONE)


def _encode(w: Layers, c: ObjectRelationConfig, grid: Place, relations: _Relations) -> list[int]:
    """The transformer's encoder. Returns, for each layer of the decoder, the buffer of keys and values."""
    width, square = c.width, (c.width, c.width)
    x, normed, query, found = (w.buffer(width) for _ in range(4))
    seen, inner = w.buffer(2 * width), w.buffer(c.feed_forward)
    w.linear("region", (width, c.grid_channels), grid, Place(x), "RELU")
    for number in c.order:
        name = f"encoder.{number}"
        w.layer_norm(f"{name}.attention_norm", width, x, normed)
        _ask(w, c, f"{name}.attention", normed, query)
        _remember(w, c, f"{name}.attention", normed, seen)
        sizes: dict[str, Any] = {"query": Place(query), "y": Place(found), "width": width, "heads": c.heads}
        w.builder.add(w.program, "ATTEND_RELATED", **sizes, seen=Place(seen), **relations.of_layer(number, c.heads))
        w.linear(f"{name}.attention.output", square, Place(found), Place(x), start="FROM_SELF")
        w.feed_forward(name, (c.feed_forward, width), x, normed, inner)
    w.layer_norm("encoder_norm", width, x, normed)
    memory = [w.buffer(2 * width, kept=True) for _ in range(c.unique_layers)]
    for number, kept in enumerate(memory):
        _remember(w, c, f"decoder.{number}.memory_attention", normed, kept)
    return memory


def _ask(w: Layers, c: ObjectRelationConfig, name: str, x: int, y: int) -> None:
    """Queries of the attention of that name."""
    query, _, _ = PROJECTIONS[c.share_attention]
    w.linear(f"{name}.{query}", (c.width, c.width), Place(x), Place(y))


def _remember(w: Layers, c: ObjectRelationConfig, name: str, x: int, y: int) -> None:
    """Keys and below them values of the attention of that name."""
    _, key, value = PROJECTIONS[c.share_attention]
    w.linear(f"{name}.{key}", (c.width, c.width), Place(x), Place(y))
    w.linear(f"{name}.{value}", (c.width, c.width), Place(x), Place(y, c.width))


def _decode(w: Layers, c: ObjectRelationConfig, memory: list[int]) -> dict[str, int]:
    """One word of each caption."""
    width, square = c.width, (c.width, c.width)
    x, normed, query, found = (w.buffer(width) for _ in range(4))
    now, inner = w.buffer(2 * width), w.buffer(c.feed_forward)
    scale, positions = math.sqrt(width), w.builder.constant(sinusoids(MOST_WORDS, width))
    w.embed(c, width, Place(x), scale=scale, positions=positions)
    for number in c.order:
        name = f"decoder.{number}"
        sizes: dict[str, Any] = {"query": Place(query), "y": Place(found), "width": width, "heads": c.heads}
        w.layer_norm(f"{name}.attention_norm", width, x, normed)
        _ask(w, c, f"{name}.attention", normed, query)
        _remember(w, c, f"{name}.attention", normed, now)
        kept = w.builder.buffer(2 * width, "WORDS")
        w.builder.add(w.program, "ATTEND_WORDS", **sizes, words=Place(now), kept=kept)
        w.linear(f"{name}.attention.output", square, Place(found), Place(x), start="FROM_SELF")
        w.layer_norm(f"{name}.memory_norm", width, x, normed)
        _ask(w, c, f"{name}.memory_attention", normed, query)
        w.builder.add(w.program, "ATTEND_POSITIONS", **sizes, seen=Place(memory[number]))
        w.linear(f"{name}.memory_attention.output", square, Place(found), Place(x), start="FROM_SELF")
        w.feed_forward(name, (c.feed_forward, width), x, normed, inner)
    w.layer_norm("decoder_norm", width, x, normed)
    return w.predict(c, Place(normed), width, width)


def sinusoids(words: int, width: int) -> NDArray[np.float32]:
    """Sinusoidal encoding (words, width) of the places of words; sines at even columns, cosines at odd ones."""
    rates = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width))
    angles = np.arange(words, dtype=np.float32)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(words, width)
