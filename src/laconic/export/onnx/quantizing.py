"""Weights of 8 bits, unsigned: an encoder that is stored so, and a step that computes with them.

What is read once for an image, convolutions above all, is computed in float32 from weights that are small in the file:
when they were computed in 8 bits, convolutions were slower and most captions others. What is read anew for each word is
computed in 8 bits. A number that meets the weights becomes two of 8 bits, the second for what the first one leaves: one
alone would be as coarse as the largest number in any caption of the call has it.

Weights that lie on a grid of few steps, as those of compact and trained files do, are exact in 8 bits. Of others,
kernels and the layer that scores the words take 16 bits and are computed in float32, since captions change otherwise.

Codes are unsigned since processors without VNNI add products of signed ones in 16 bits, which overflow unseen.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from laconic.export.onnx.graphs import array, constant, nodes, rewritten

LEAST = 1024  # weights of a matrix that is worth it
MIDDLE, LEVELS = 128, 127  # the code of 0 on a grid, and steps on either side of it
ON_GRID = 1e-3  # of a step, how far from it a weight may lie

Floats = NDArray[np.float32]

STORED = """
numbers = Cast <to = 1> (codes)
steps = Sub (numbers, zero)
weight = Mul (steps, scale)
"""
HALVES = """
weight = Cast <to = 1> (halves)
"""
ROWS = """
table = Gather (codes, token)
out = DequantizeLinear <axis = 1> (table, scale, zero)
"""
DIGITS = """
high, high_scale, high_zero = DynamicQuantizeLinear (x)
near = DequantizeLinear (high, high_scale, high_zero)
rest = Sub (x, near)
low, low_scale, low_zero = DynamicQuantizeLinear (rest)
"""
PRODUCT = """
sums = MatMulInteger (digit, codes, digit_zero, zero)
numbers = Cast <to = 1> (sums)
factor = Mul (digit_scale, scale)
product = Mul (numbers, factor)
"""


@dataclass(frozen=True, eq=False)
class Codes:
    """Weights as (codes - zero) * scale.

    Attributes:
        codes: uint8, of the shape of the weights.
        scale, zero: float32 and uint8, one for each output, in a shape that broadcasts, or one alone for all.
        exact: these are the weights that the codes were made of.
    """

    codes: NDArray[np.uint8]
    scale: Floats
    zero: NDArray[np.uint8]
    exact: bool


def codes_of(weights: Floats, axis: int) -> Codes:
    """8 bits for each weight; `axis` is that of the outputs, each of which has a range of its own."""
    step = _step(weights)
    if step is not None:
        codes = (np.round(weights / step) + MIDDLE).astype(np.uint8)
        return Codes(codes, np.array(step, np.float32), np.array(MIDDLE, np.uint8), True)
    others = tuple(other for other in range(weights.ndim) if other != axis)
    low, high = weights.min(others, keepdims=True).clip(max=0), weights.max(others, keepdims=True).clip(min=0)
    scale = np.maximum((high - low) / 255, np.finfo(np.float32).tiny)
    zero = np.round(-low / scale)
    codes = np.clip(np.round(weights / scale) + zero, 0, 255).astype(np.uint8)
    return Codes(codes, scale, zero.astype(np.uint8), False)


def _step(weights: Floats) -> float | None:
    """The step that all weights are whole numbers of, at most LEVELS; None where there is none."""
    sizes = np.unique(np.abs(weights))
    if len(sizes) > LEVELS + 1 or not sizes[-1]:
        return None
    for levels in range(1, LEVELS + 1):
        steps = sizes * (levels / sizes[-1])
        if np.abs(steps - np.round(steps)).max() < ON_GRID:
            return float(sizes[-1]) / levels
    return None


def stored(encoder: ModelProto) -> ModelProto:
    """A model whose matrices and kernels are stored in 8 or 16 bits; what runs it makes weights of them when it loads
    it."""
    weights, made = {tensor.name: tensor for tensor in encoder.graph.initializer}, list[NodeProto]()
    constants: dict[str, list[TensorProto]] = {}
    for node in encoder.graph.node:
        name = _weights_of(node, weights)
        if name and name not in constants:
            text, held = _small(array(weights[name]), node)
            constants[name] = [constant(f"{name}/{part}", value) for part, value in held.items()]
            made += nodes(text, {"weight": name}, f"{name}/")
        made.append(node)
    return rewritten(encoder, made, [tensor for held in constants.values() for tensor in held])


def _small(weights: Floats, node: NodeProto) -> tuple[str, dict[str, NDArray[Any]]]:
    """Nodes that make the weights of a node, and what they read; no nodes where it cannot be had in few bits."""
    codes = codes_of(weights, _outputs(node))
    if codes.exact or node.op_type != "Conv":
        return STORED, {"codes": codes.codes, "scale": codes.scale, "zero": codes.zero.astype(np.float32)}
    return (HALVES, {"halves": weights.astype(np.float16)}) if _fit_halves(weights) else ("", {})


def computed(step: ModelProto) -> ModelProto:
    """A model whose matrix products are computed in 8 bits, and whose table of words is stored in as many."""
    draft = _Draft(step)
    scores = {node.input[0] for node in step.graph.node if node.op_type == "LogSoftmax"}
    for node in step.graph.node:
        if name := _weights_of(node, draft.weights):
            draft.multiply(node, name, last=node.output[0] in scores)
        elif node.op_type == "Gather" and node.input[1] == "token" and _large(draft.weights.get(node.input[0])):
            draft.look_up(node)
        else:
            draft.made.append(node)
    return rewritten(step, draft.made, draft.constants)


def _fit_halves(weights: Floats) -> bool:
    """Whether float16 reaches as far as the weights."""
    return bool(np.abs(weights).max() <= np.finfo(np.float16).max)


def _weights_of(node: NodeProto, weights: dict[str, TensorProto]) -> str:
    """Name of the matrix or kernel of a node; none where it has none, or one that stays float32."""
    if node.op_type not in ("Conv", "MatMul", "Gemm") or node.input[1] not in weights:
        return ""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    plain = all(attributes[name].f == 1 for name in ("alpha", "beta") if name in attributes)
    plain = plain and not ("transA" in attributes and attributes["transA"].i)
    return node.input[1] if plain and _large(weights[node.input[1]]) else ""


def _large(tensor: TensorProto | None) -> bool:
    """Whether a matrix or kernel is worth it."""
    return tensor is not None and len(tensor.dims) > 1 and math.prod(tensor.dims) >= LEAST


def _outputs(node: NodeProto) -> int:
    """Axis of a node's weights that its outputs are of."""
    return 0 if node.op_type == "Conv" or _transposed(node) else 1


def _transposed(node: NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


class _Draft:
    """What becomes of a step: its nodes and further constants so far."""

    def __init__(self, step: ModelProto) -> None:
        self.made: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.held: set[str] = set()  # matrices whose codes are among them: layers may share one
        self.weights = {tensor.name: tensor for tensor in step.graph.initializer}
        self.split: set[str] = set()  # vectors that have been made digits
        self.joined = {node.output[0]: list(node.input) for node in step.graph.node if node.op_type == "Concat"}
        graph = shape_inference.infer_shapes(step).graph
        shapes = {
            value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self.widths = {name: shape[-1].dim_value for name, shape in shapes.items() if shape}

    def multiply(self, node: NodeProto, name: str, last: bool) -> None:
        """A product with a constant matrix, and what is added to it; the last one makes the scores of words."""
        (out,), matrix = node.output, array(self.weights[name])
        factors, terms = self._factors(node.input[0], matrix.T if _transposed(node) else matrix), []
        if last and not all(codes.exact for _, codes in factors):
            self.keep(node, name)
            return
        for place, (x, codes) in enumerate(factors):
            held = self._hold(f"{name}/{place + 1}_of_{len(factors)}/", codes)
            if x not in self.split:
                self.split.add(x)
                self.made += nodes(DIGITS, {"x": x}, f"{x}/")
            for digit in (f"{x}/high", f"{x}/low"):
                names = {"digit": digit, "digit_scale": f"{digit}_scale", "digit_zero": f"{digit}_zero", **held}
                terms.append(f"{out}/{place}/{digit}/product")
                self.made += nodes(PRODUCT, names, f"{out}/{place}/{digit}/")
        self.made.append(helper.make_node("Sum", [*terms, *node.input[2:]], [out]))

    def keep(self, node: NodeProto, name: str) -> None:
        """A product in float32, of a matrix that is stored in 16 bits where it can be."""
        if _fit_halves(matrix := array(self.weights[name])):
            self.made += nodes(HALVES, {"weight": name}, f"{name}/")
            self.constants.append(constant(f"{name}/halves", matrix.astype(np.float16)))
        self.made.append(node)

    def look_up(self, node: NodeProto) -> None:
        """Rows of a table."""
        (out,) = node.output
        held = self._hold(f"{out}/", codes_of(array(self.weights[node.input[0]]), 1))
        self.made += nodes(ROWS, {"token": "token", "out": out, **held}, f"{out}/")

    def _factors(self, x: str, matrix: Floats) -> list[tuple[str, Codes]]:
        """A vector and the codes of a matrix (inputs, outputs). Where the vector is several, joined, each of which has
        a grid of its own in the matrix, it is these, and the rows of the matrix that read them."""
        whole = codes_of(matrix, 1)
        widths = [self.widths.get(part, 0) for part in self.joined.get(x, ())]
        if whole.exact or sum(widths) != len(matrix):
            return [(x, whole)]
        parts = [codes_of(rows, 1) for rows in np.split(matrix, np.cumsum(widths)[:-1])]
        return list(zip(self.joined[x], parts, strict=True)) if all(part.exact for part in parts) else [(x, whole)]

    def _hold(self, prefix: str, codes: Codes) -> dict[str, str]:
        """Names of the constants that codes become."""
        scale, zero = (part.reshape(-1) if part.ndim else part for part in (codes.scale, codes.zero))
        held: dict[str, NDArray[Any]] = {"codes": codes.codes, "scale": scale, "zero": zero}
        if prefix not in self.held:
            self.held.add(prefix)
            self.constants += [constant(prefix + name, value) for name, value in held.items()]
        return {name: prefix + name for name in held}
