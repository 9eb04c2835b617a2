"""PyTorch's exporter, quietly: a module becomes an ONNX model in memory."""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto

from laconic.errors import ConfigError, printable
from laconic.export.onnx.graphs import array, constant, rewritten
from laconic.export.onnx.modules import Traceable

OPSET = 20  # of ONNX Runtime 1.17 and later


def traced(part: Traceable, what: str) -> ModelProto:
    """The ONNX model of a module, its weights within it; sizes that may change bear their names.

    Raises ConfigError, naming `what`, where the exporter cannot follow the module or would fix a size.
    """
    sides = {name: torch.export.Dim(name, min=0) for sizes in part.sizes for name in sizes.values()}
    shapes = tuple({axis: sides[name] for axis, name in sizes.items()} for sizes in part.sizes)
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(
                part.module, tuple(part.example.values()), dynamic_shapes=(shapes,), strict=False
            )
            made = torch.onnx.export(
                program, input_names=tuple(part.example), output_names=part.outputs, opset_version=OPSET, dynamo=True,
                external_data=False, verbose=False,
            )  # fmt: skip
        except Exception as error:  # of many kinds, of the two exporters and whatever they call
            raise ConfigError(f"{what} cannot be exported by PyTorch {torch.__version__}: {_reason(error)}") from error
    model = _with_parts(made.model_proto)  # type: ignore[union-attr]
    _name_sizes(model, part)
    return model


def _reason(error: BaseException) -> str:
    """What began it, in a line: the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return printable(str(error).split("\n")[0] or type(error).__name__)


def _with_parts(model: ModelProto) -> ModelProto:
    """The model with parts of weights in the place of weights that it takes apart: often it reads one of them alone."""
    weights, kept, parts = {one.name: one for one in model.graph.initializer}, list[NodeProto](), list[TensorProto]()
    for node in model.graph.node:
        if node.op_type != "Split" or not all(name in weights for name in node.input) or len(node.input) != 2:
            kept.append(node)
            continue
        whole, sizes = (array(weights[name]) for name in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        found = np.split(whole, np.cumsum(sizes)[:-1], axis)
        parts += [constant(name, part) for name, part in zip(node.output, found, strict=True)]
    return rewritten(model, kept, parts)


def _name_sizes(model: ModelProto, part: Traceable) -> None:
    """Gives sizes the names that they have in `part`, in the place of the exporter's. What is known of shapes between
    inputs and outputs goes: quantisation would contradict it."""
    graph, names = model.graph, dict[str, str]()
    for value, sizes in zip(graph.input, part.sizes, strict=True):
        names |= {value.type.tensor_type.shape.dim[axis].dim_param: name for axis, name in sizes.items()}
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), dim.dim_param)
    del graph.value_info[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself: warnings of deprecations within PyTorch, and lines of its log."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
