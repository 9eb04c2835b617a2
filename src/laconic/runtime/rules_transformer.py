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
    w = _Writer(builder, packed, config, "image")
    relations = _relations(w, cells)
    memory = _encode(w, Place(grid), relations)
    logits = _decode(replace(w, program="step"), memory)
    return {"logits": logits} if relations.pairs == NONE or cells else {"logits": logits, "boxes": relations.pairs}


@dataclass(frozen=True)
class _Writer:
    """Adds to one program what its layers have in common, by the names that parameters have in the file."""

    builder: Builder
    packed: Packed
    config: ObjectRelationConfig
    program: str

    def buffer(self, rows: int, *, kept: bool = False) -> int:
        """Of the space that the program works on."""
        return self.builder.buffer(rows, "ROWS" if self.program == "step" else "POSITIONS", kept=kept)

    def linear(self, name: str, x: Place, y: Place, activation: str = "LINEARLY", start: str = "FROM_BIAS") -> None:
        """The linear layer of that name."""
        matrix = self.builder.once(f"{name}.weight", lambda: self.matrix(name))
        self.builder.linear(self.program, x, y, matrix, activation, start)

    def matrix(self, name: str) -> int:
        """Weight and bias of the layer of that name."""
        weights, step = self.packed.csr(f"decoder.{name}.weight"), self.packed.step(f"decoder.{name}.weight")
        return self.builder.matrix(weights, self.vector(f"{name}.bias"), step=step)

    def remember(self, name: str, x: int, y: int) -> None:
        """Keys and below them values of the attention of that name."""
        _, key, value = PROJECTIONS[self.config.share_attention]
        self.linear(f"{name}.{key}", Place(x), Place(y))
        self.linear(f"{name}.{value}", Place(x), Place(y, self.config.width))

    def ask(self, name: str, x: int, y: int) -> None:
        """Queries of the attention of that name."""
        self.linear(f"{name}.{PROJECTIONS[self.config.share_attention][0]}", Place(x), Place(y))

    def layer_norm(self, name: str, x: int, y: int) -> None:
        weight, bias = self.constant(f"{name}.weight", 1.0), self.constant(f"{name}.bias", 0.0)
        self.builder.add(self.program, "LAYER_NORM", x=x, y=y, weight=weight, bias=bias)

    def constant(self, name: str, idle: float) -> int:
        """A parameter in the arena; NONE where all of it is `idle`."""
        return self.builder.once(name, lambda: self.builder.constant(self.vector(name, idle)))

    def feed_forward(self, name: str, x: int, normed: int, inner: int) -> None:
        """x += outer(relu(inner(norm(x))))"""
        self.layer_norm(f"{name}.feed_forward_norm", x, normed)
        self.linear(f"{name}.feed_forward.inner", Place(normed), Place(inner), "RELU")
        self.linear(f"{name}.feed_forward.outer", Place(inner), Place(x), start="FROM_SELF")

    def vector(self, name: str, idle: float = 0.0) -> NDArray[np.float32] | None:
        """A parameter; None where all of it is `idle`, and changes nothing."""
        found: NDArray[np.float32] = self.packed[f"decoder.{name}"]
        return None if (found == idle).all() else found


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


def _relations(w: _Writer, cells: int | None) -> _Relations:
    """`cells`: of the grid; None where regions are told where they lie."""
    c, builder = w.config, w.builder
    names = [f"decoder.relation.{layer}" for layer in range(c.unique_layers)]
    weights = np.concatenate([dense(w.packed[f"{name}.weight"]) for name in names])
    bias = np.concatenate([w.packed[f"{name}.bias"] for name in names])
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


def _encode(w: _Writer, grid: Place, relations: _Relations) -> list[int]:
    """The transformer's encoder. Returns, for each layer of the decoder, the buffer of keys and values."""
    c = w.config
    x, normed, query, found = (w.buffer(c.width) for _ in range(4))
    seen, inner = w.buffer(2 * c.width), w.buffer(c.feed_forward)
    w.linear("region", grid, Place(x), "RELU")
    for number in c.order:
        name = f"encoder.{number}"
        w.layer_norm(f"{name}.attention_norm", x, normed)
        w.ask(f"{name}.attention", normed, query)
        w.remember(f"{name}.attention", normed, seen)
        sizes: dict[str, Any] = {"query": Place(query), "y": Place(found), "width": c.width, "heads": c.heads}
        w.builder.add(w.program, "ATTEND_RELATED", **sizes, seen=Place(seen), **relations.of_layer(number, c.heads))
        w.linear(f"{name}.attention.output", Place(found), Place(x), start="FROM_SELF")
        w.feed_forward(name, x, normed, inner)
    w.layer_norm("encoder_norm", x, normed)
    memory = [w.buffer(2 * c.width, kept=True) for _ in range(c.unique_layers)]
    for number, kept in enumerate(memory):
        w.remember(f"decoder.{number}.memory_attention", normed, kept)
    return memory


def _decode(w: _Writer, memory: list[int]) -> int:
    """One word of each caption. Returns the buffer of logits."""
    c = w.config
    x, normed, query, found = (w.buffer(c.width) for _ in range(4))
    now, inner, logits = w.buffer(2 * c.width), w.buffer(c.feed_forward), w.buffer(c.vocabulary)
    _embed(w, x)
    for number in c.order:
        name = f"decoder.{number}"
        sizes: dict[str, Any] = {"query": Place(query), "y": Place(found), "width": c.width, "heads": c.heads}
        w.layer_norm(f"{name}.attention_norm", x, normed)
        w.ask(f"{name}.attention", normed, query)
        w.remember(f"{name}.attention", normed, now)
        kept = w.builder.buffer(2 * c.width, "WORDS")
        w.builder.add(w.program, "ATTEND_WORDS", **sizes, words=Place(now), kept=kept)
        w.linear(f"{name}.attention.output", Place(found), Place(x), start="FROM_SELF")
        w.layer_norm(f"{name}.memory_norm", x, normed)
        w.ask(f"{name}.memory_attention", normed, query)
        w.builder.add(w.program, "ATTEND_POSITIONS", **sizes, seen=Place(memory[number]))
        w.linear(f"{name}.memory_attention.output", Place(found), Place(x), start="FROM_SELF")
        w.feed_forward(name, x, normed, inner)
    w.layer_norm("decoder_norm", x, normed)
    w.linear("output", Place(normed), Place(logits))
    return logits


def _embed(w: _Writer, x: int) -> None:
    name = "decoder.embedding.weight"
    table = w.builder.table(w.packed.csr(name), step=w.packed.step(name))
    scale = int(np.float32(math.sqrt(w.config.width)).view(np.uint32))
    positions = w.builder.constant(sinusoids(MOST_WORDS, w.config.width))
    w.builder.add(w.program, "EMBED", y=Place(x), matrix=table, activation="LINEARLY", scale=scale, positions=positions)


def sinusoids(words: int, width: int) -> NDArray[np.float32]:
    """Sinusoidal encoding (words, width) of the places of words; sines at even columns, cosines at odd ones."""
    rates = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width))
    angles = np.arange(words, dtype=np.float32)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(words, width)
