"""What every exported file says of the captioner, as ONNX keeps it: texts by name."""

import json
from collections.abc import Mapping, Sequence

from onnx import ModelProto, helper

import laconic
from laconic.export.onnx.rules import Rules
from laconic.spec.model import REGIONS
from laconic.spec.packed import CaptionerSpec


def facts_of(spec: CaptionerSpec, rules: Rules, between: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Texts by name: numbers and words, lists and tables as JSON.

    `image_size` and `normalization` are of captioners that read photos, `region_channels` is of the others.
    `max_length` counts words, `tokens_per_word` is more than 1 where words are spelled by digits to the base
    `radix_base`, which is 0 where they are not. `between` are the names of the tensors from encoder to step.
    """
    model, special = spec.model, rules.special
    read: dict[str, object] = {"region_channels": model.encoder.channels}
    if model.encoder.name != REGIONS:
        how = spec.normalization
        read = {"image_size": model.encoder.size, "normalization": {"mean": how.mean, "scale": how.scale}}
    facts: dict[str, object] = {
        "laconic_version": laconic.__version__, "captioner": model.decoder.name, "encoder": model.encoder.name, **read,
        "max_length": rules.max_length, "tokens_per_word": special.tokens_at_most(1),
        "radix_base": spec.vocabulary.base,
        "special_ids": {name: getattr(special, name) for name in ("pad", "unk", "bos", "eos")},
        "never_said": special.forbidden(allow_unknown=False), "tensors": between,
        "vocabulary": spec.vocabulary.words,
    }  # fmt: skip
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


def describe(model: ModelProto, part: str, weights: str, facts: Mapping[str, str]) -> None:
    """Writes into a model what it is: encoder, step or greedy, of float32 or uint8 weights; and the facts."""
    model.producer_name, model.producer_version = "laconic", laconic.__version__
    model.graph.name = part
    helper.set_model_props(model, {"part": part, "weights": weights, **facts})
