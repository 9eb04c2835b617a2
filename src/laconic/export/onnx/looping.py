"""The whole greedy search as one ONNX model: an encoder, then a `Loop` around one step of the decoder.

Both come as models of their own, and any two that fit together make one, so that a file of 8 bits is made of parts of
8 bits. All captions of a call take their steps together. Those that have ended go on beside the others, and what they
would say is left out; the loop ends with the last of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from laconic.export.onnx.graphs import constant, nodes, renamed, value_of
from laconic.export.onnx.rules import Rules

# Nodes of each part of the graph; `to = 7` is int64.
FIRST = """
images = Shape <start = 0, end = 1> (given)
count = Squeeze (images)
each = Range (zero, count, one)
begun = Expand (bos, images)
open = Expand (no, images)
"""
PLAIN = """
scores = Add (log_probs, allowed)
"""
SPELLED = """
place = Mod (iteration, digits)
first = Equal (place, zero)
at_last = Or (edge, first)
table = Cast <to = 7> (at_last)
tables = Gather <axis = 1> (allowed, place)
rules = Gather (tables, table)
scores = Add (log_probs, rules)
"""
CHOICE = """
best = ArgMax <axis = 1, keepdims = 0> (scores)
likeliest = ReduceMax <keepdims = 0> (scores, words)
log_prob = Min (likeliest, nil)
next_token = Where (ended, pad, best)
said = Identity (next_token)
cost = Where (ended, nil, log_prob)
end = Equal (best, eos)
next_ended = Or (ended, end)
going = Not (next_ended)
left = Cast <to = 7> (going)
sum = ReduceSum <keepdims = 0> (left)
next_going = Greater (sum, zero)
"""
EDGE = """
digit = Gather (last, place)
equal = Equal (best, digit)
next_edge = And (at_last, equal)
"""
LAST = """
each_said = Transpose <perm = [1, 0]> (all_said)
each_cost = Transpose <perm = [1, 0]> (all_costs)
steps = Shape <start = 1, end = 2> (each_said)
missing = Sub (most, steps)
pads = Concat <axis = 0> (sides, missing)
tokens = Pad (each_said, pads, pad)
log_probs = Pad (each_cost, pads, nil)
"""


def greedy(
    encoder: ModelProto, step: ModelProto, of_images: Sequence[str], of_captions: Sequence[str], rules: Rules
) -> ModelProto:
    """From what the encoder reads to `tokens`, int64 (images, rules.tokens), eos last and padding behind it, and their
    `log_probs`, float32, 0 behind the last. The names are those of the tensors between the two."""
    inputs = [value.name for value in encoder.graph.input]
    seen = renamed(encoder.graph, lambda name: name if name in inputs else f"encoder/{name}")
    held = {"image": "search/each", **{name: f"encoder/{name}" for name in of_images}}
    decoder = renamed(step.graph, lambda name: held.get(name, f"step/{name}"))
    spelled, lasting = bool(rules.last), _lasting(decoder)
    begins = ["search/begun", *(1 + spelled) * ["search/open"], *(f"encoder/{name}" for name in of_captions)]
    ends = [f"search/end_{place}" for place in range(len(begins))]
    loop = helper.make_node(
        "Loop", ["search/trips", "", *begins], [*ends, "search/all_said", "search/all_costs"], "search/loop",
        body=_body(decoder, of_captions, spelled),
    )  # fmt: skip
    outer = {"given": inputs[0], "tokens": "tokens", "log_probs": "log_probs"}
    sizes = "images", rules.tokens
    graph = helper.make_graph(
        [*seen.node, *lasting, *nodes(FIRST, outer, "search/"), loop, *nodes(LAST, outer, "search/")],
        "greedy",
        seen.input,
        [value_of("tokens", TensorProto.INT64, *sizes), value_of("log_probs", TensorProto.FLOAT, *sizes)],
        [*seen.initializer, *decoder.initializer, *_constants(rules)],
    )
    made: ModelProto = helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)
    return made


def _lasting(step: GraphProto) -> list[NodeProto]:
    """Takes the nodes out of a step that make the same of its weights for each word."""
    known, lasting, changing = {tensor.name for tensor in step.initializer}, list[NodeProto](), list[NodeProto]()
    for node in step.node:
        if node.input and known.issuperset(node.input):
            known.update(node.output)
            lasting.append(node)
        else:
            changing.append(node)
    del step.node[:]
    step.node.extend(changing)
    return lasting


def _body(step: GraphProto, of_captions: Sequence[str], spelled: bool) -> GraphProto:
    """What is done for each token: a step, and the choice of what is said."""
    kinds = {value.name: value.type for value in step.input}
    states = [ValueInfoProto(name=name, type=kinds[name]) for name in (f"step/{name}" for name in of_captions)]
    new = [ValueInfoProto(name=f"step/next_{name}", type=kinds[f"step/{name}"]) for name in of_captions]
    flags = ["ended", "edge"][: 1 + spelled]
    inputs = [
        value_of("search/iteration", TensorProto.INT64),
        value_of("search/on", TensorProto.BOOL),
        value_of("step/token", TensorProto.INT64, "images"),
        *(value_of(f"search/{flag}", TensorProto.BOOL, "images") for flag in flags),
    ]
    outputs = [
        value_of("search/next_going", TensorProto.BOOL),
        value_of("search/next_token", TensorProto.INT64, "images"),
        *(value_of(f"search/next_{flag}", TensorProto.BOOL, "images") for flag in flags),
    ]
    said = [value_of("search/said", TensorProto.INT64, "images"), value_of("search/cost", TensorProto.FLOAT, "images")]
    text = (SPELLED if spelled else PLAIN) + CHOICE + EDGE * spelled
    chosen = nodes(text, {"log_probs": "step/log_probs"}, "search/")
    made: GraphProto = helper.make_graph([*step.node, *chosen], "word", [*inputs, *states], [*outputs, *new, *said])
    return made


def _constants(rules: Rules) -> list[TensorProto]:
    """What the nodes above read."""
    special = rules.special
    values: dict[str, ArrayLike] = {
        "bos": np.int64(special.bos), "eos": np.int64(special.eos), "pad": np.int64(special.pad),
        "zero": np.int64(0), "one": np.int64(1), "words": np.array([1]), "nil": np.float32(0), "no": np.array(False),
        "trips": np.int64(rules.tokens), "most": np.array([rules.tokens]), "sides": np.zeros(3, np.int64),
        "allowed": rules.allowed if rules.last else rules.allowed[0, 0],
    }  # fmt: skip
    if rules.last:
        values |= {"digits": np.int64(len(rules.last)), "last": np.array(rules.last)}
    return [constant(f"search/{name}", value) for name, value in values.items()]
