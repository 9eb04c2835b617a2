"""The files of an export, one after the other."""

from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto

from laconic.captioner.packing import load
from laconic.export.onnx.checking import check
from laconic.export.onnx.describing import describe, facts_of
from laconic.export.onnx.looping import greedy
from laconic.export.onnx.modules import parts_of
from laconic.export.onnx.quantizing import computed, stored
from laconic.export.onnx.rules import rules_of
from laconic.export.onnx.tracing import traced
from laconic.spec.packed import CaptionerSpec


def models_of(file: Path, spec: CaptionerSpec, max_length: int, int8: bool) -> Iterator[tuple[str, ModelProto]]:
    """Names of files and what is in them, checked once.

    Raises ConfigError where that length cannot be, or the exporter cannot follow, and as `check`.
    """
    rules, captioner = rules_of(spec.vocabulary, max_length), load(file)
    parts = parts_of(captioner)
    encoder = traced(parts.encoder, f"encoder {spec.model.encoder.name}")
    step = traced(parts.step, f"captioner {spec.model.decoder.name}")
    facts = facts_of(spec, rules, {"of_images": parts.of_images, "of_captions": parts.of_captions})
    made = [("float32", ".onnx", encoder, step)]
    if int8:
        made.append(("uint8", ".int8.onnx", stored(encoder), computed(step)))
    for weights, ending, first, then in made:
        both = greedy(first, then, parts.of_images, parts.of_captions, rules)
        if weights == "float32":
            check(both, captioner, max_length)
        for part, model in (("encoder", first), ("step", then), ("greedy", both)):
            describe(model, part, weights, facts)
            yield part + ending, model
