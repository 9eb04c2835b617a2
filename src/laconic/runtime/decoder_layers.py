"""Layers that captioners have in common, as operations of a program: what their rules are written with.

Weights are read by the names that the captioner's module gives them, and a file that has others, or of another shape,
is refused by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from laconic.runtime.matrices import Weights
from laconic.runtime.operations import NONE, Place
from laconic.runtime.program import Builder
from laconic.runtime.weights import read_matrix, read_vector, rectified, side_by_side
from laconic.spec.captioners import WordTables
from laconic.store import Csr, Packed

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class DecoderFile:
    """Weights of the decoder, by the names that its module gives them."""

    packed: Packed

    def matrix(self, name: str, rows: int, columns: int) -> Weights:
        """FormatError where it is missing or of another shape."""
        return read_matrix(self.packed, f"decoder.{name}", rows, columns)

    def vector(self, name: str, size: int) -> Vector:
        """FormatError where it is missing or of another size."""
        return read_vector(self.packed, f"decoder.{name}", size)

    def step(self, name: str) -> float:
        """Of the grid that its values lie on; 0 where there is none."""
        return self.packed.step(f"decoder.{name}")


class Product(NamedTuple):
    """A matrix times the rows of a buffer from `x` on; `step` is that of the grid its values lie on, or 0."""

    weights: Weights
    step: float
    x: Place


@dataclass(frozen=True)
class Layers:
    """Adds layers to one program. Sizes of matrices are (rows, columns): outputs, inputs."""

    builder: Builder
    file: DecoderFile
    program: str

    def buffer(self, rows: int, *, kept: bool | range = False) -> int:
        """Of the space that the program works on."""
        return self.builder.buffer(rows, "ROWS" if self.program == "step" else "POSITIONS", kept=kept)

    def product(self, name: str, rows: int, columns: int, x: Place) -> Product:
        """Of the matrix of that name."""
        return Product(self.file.matrix(name, rows, columns), self.file.step(name), x)

    def add_products(
        self, parts: Sequence[Product], bias: Vector | None, y: Place, *, start: str = "FROM_BIAS", image: int = NONE
    ) -> None:
        """y = the sum of products and bias. Those whose rows lie below each other become one matrix, unless their
        steps differ: then each keeps its own, and adds to y. `start`, `image`: as of LINEAR."""
        for weights, step, x in _joined(parts):
            matrix = self.builder.matrix(weights, bias, step=step)
            self.builder.linear(self.program, x, y, matrix, start=start, image=image)
            bias, start, image = None, "FROM_SELF", NONE

    def linear(
        self, name: str, size: tuple[int, int], x: Place, y: Place, activation: str = "LINEARLY", *,
        start: str = "FROM_BIAS", biased: bool = True,
    ) -> None:  # fmt: skip
        """The linear layer of that name; where several places share it, it lies in the plan once."""

        def make() -> int:
            bias = self.vector(f"{name}.bias", size[0]) if biased else None
            weights, step = self.file.matrix(f"{name}.weight", *size), self.file.step(f"{name}.weight")
            return self.builder.matrix(weights, bias, step=step)

        matrix = self.builder.once(f"{name}.weight", make)
        self.builder.linear(self.program, x, y, matrix, activation, start)

    def layer_norm(self, name: str, size: int, x: int, y: int) -> None:
        """The layer norm of that name."""
        weight, bias = self.constant(f"{name}.weight", size, 1.0), self.constant(f"{name}.bias", size, 0.0)
        self.builder.add(self.program, "LAYER_NORM", x=x, y=y, weight=weight, bias=bias)

    def constant(self, name: str, size: int, idle: float) -> int:
        """A parameter in the arena, where it lies once; NONE where all of it is `idle`."""
        return self.builder.once(name, lambda: self.builder.constant(self.vector(name, size, idle)))

    def feed_forward(self, name: str, size: tuple[int, int], x: int, normed: int, inner: int) -> None:
        """x += outer(relu(inner(norm(x)))); size: hidden, width."""
        hidden, width = size
        self.layer_norm(f"{name}.feed_forward_norm", width, x, normed)
        self.linear(f"{name}.feed_forward.inner", (hidden, width), Place(normed), Place(inner), "RELU")
        self.linear(f"{name}.feed_forward.outer", (width, hidden), Place(inner), Place(x), start="FROM_SELF")

    def vector(self, name: str, size: int, idle: float = 0.0) -> Vector | None:
        """A parameter; None where all of it is `idle`, and changes nothing."""
        found = self.file.vector(name, size)
        return None if (found == idle).all() else found

    def embed(
        self, config: WordTables, size: int, y: Place, *, relu: bool = False, scale: float = 1.0,
        positions: int = NONE,
    ) -> None:  # fmt: skip
        """The look-up of the last word: `scale` times its vector of `size` numbers, and that of the position, of those
        at `positions` in the arena. `relu` rectifies the vector; a table that is not factorised once and for all."""
        name = "embedding.weight"
        if not config.rank:
            weight = self.file.matrix(name, config.vocabulary, size)
            table = self.builder.table(rectified(weight) if relu else weight, step=self.file.step(name))
            self.builder.embed(self.program, y, table, scale=scale, positions=positions)
            return
        few = Place(self.buffer(config.rank))
        table = self.builder.table(self.file.matrix(name, config.vocabulary, config.rank), step=self.file.step(name))
        self.builder.embed(self.program, few, table, scale=scale)
        if positions != NONE:  # the vector of the position alone, by a table of nothing
            starts, none = np.zeros(config.vocabulary + 1, np.int32), np.zeros(0, np.int32)
            nothing = Csr((config.vocabulary, size), starts, none, none.astype(np.float32))
            self.builder.embed(self.program, y, self.builder.table(nothing), positions=positions)
        start = "FROM_BIAS" if positions == NONE else "FROM_SELF"
        activation = "RELU" if relu else "LINEARLY"
        self.linear("widen", (size, config.rank), few, y, activation, start=start, biased=False)

    def lstm(self, parts: Sequence[Product], bias: Vector | None, hidden: Place, image: int = NONE) -> None:
        """A step of an LSTM whose gates are the sum of products; `image`: a share of them. Writes `hidden`, with a
        new cell."""
        rows = parts[0].weights.shape[0]
        gates, cell = self.buffer(rows), self.buffer(rows // 4, kept=True)
        start = "FROM_BIAS" if image == NONE else "FROM_IMAGE"
        self.add_products(parts, bias, Place(gates), start=start, image=image)
        self.builder.add(self.program, "LSTM", gates=Place(gates), cell=Place(cell), hidden=hidden)

    def lstm_bias(self, name: str, size: int) -> Vector:
        """Both biases of a cell of PyTorch, in one."""
        return self.file.vector(f"{name}.bias_ih", 4 * size) + self.file.vector(f"{name}.bias_hh", 4 * size)

    def predict(self, config: WordTables, x: Place, size: int, word: int) -> dict[str, int]:
        """The logits of a state of `size` numbers, where words have `word`; returns what the header says of them."""
        columns = config.rank or (word if config.tied else size)
        if config.rank or columns != size:
            few = Place(self.buffer(columns))
            self.linear("reduce", (columns, size), x, few, biased=False)
            x = few
        logits, name = self.buffer(config.vocabulary), "embedding.weight" if config.tied else "output.weight"
        weights, bias = (
            self.file.matrix(name, config.vocabulary, columns),
            self.vector("output.bias", config.vocabulary),
        )
        matrix = self.builder.matrix(weights, bias, step=self.file.step(name))
        self.builder.linear(self.program, x, Place(logits), matrix)
        return {"logits": logits}


def _joined(parts: Sequence[Product]) -> list[Product]:
    """Products of neighbouring rows and equal steps as one."""
    found: list[Product] = []
    for part in parts:
        last = found[-1] if found else None
        if last and last.step == part.step and last.x.below(last.weights.shape[1]) == part.x:
            found[-1] = last._replace(weights=side_by_side([last.weights, part.weights]))
        else:
            found.append(part)
    return found
