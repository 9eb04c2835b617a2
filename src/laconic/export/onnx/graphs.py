"""Pieces of ONNX graphs: nodes from text, values under other names, constants."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, parser


def nodes(text: str, names: Mapping[str, str], prefix: str) -> list[NodeProto]:
    """Nodes as ONNX writes them, one a line; a value that has no other name gets its own behind the prefix."""
    graph = GraphProto(node=[parser.parse_node(line) for line in text.split("\n") if line])
    return list(renamed(graph, lambda name: names.get(name, prefix + name)).node)


def renamed(graph: GraphProto, name: Callable[[str], str]) -> GraphProto:
    """A copy of a graph without subgraphs, all of its values and nodes named anew."""
    made = GraphProto()
    made.CopyFrom(graph)
    for value in (*made.input, *made.output, *made.initializer):
        value.name = name(value.name)
    for node in made.node:
        node.name = name(node.name) if node.name else ""
        node.input[:] = [name(value) if value else "" for value in node.input]
        node.output[:] = [name(value) if value else "" for value in node.output]
    return made


def constant(name: str, value: ArrayLike) -> TensorProto:
    """An initializer; numbers keep the type that numpy gives them."""
    made: TensorProto = numpy_helper.from_array(np.array(value, order="C"), name)
    return made


def array(tensor: TensorProto) -> NDArray[Any]:
    """The numbers of an initializer."""
    found: NDArray[Any] = numpy_helper.to_array(tensor)
    return found


def value_of(name: str, kind: int, *shape: str | int) -> ValueInfoProto:
    """An input or output; `kind` as in TensorProto, sizes that may change by name."""
    made: ValueInfoProto = helper.make_tensor_value_info(name, kind, shape)
    return made


def rewritten(model: ModelProto, made: Iterable[NodeProto], constants: Iterable[TensorProto]) -> ModelProto:
    """A copy with these nodes in the place of its own and further initializers; those that nothing reads, or a node
    makes now, are gone."""
    copy, kept = ModelProto(), list(made)
    copy.CopyFrom(model)
    read = {value for node in kept for value in node.input} - {value for node in kept for value in node.output}
    held = [tensor for tensor in (*model.graph.initializer, *constants) if tensor.name in read]
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(kept)
    copy.graph.initializer.extend(held)
    return copy
