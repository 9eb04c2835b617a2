"""Sharing in the Object Relation Transformer against the values of the published code (ACORT), and against itself."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.captioner.accounting import count_weights
from laconic.captioner.packing import outline
from laconic.decode.search import Decoding, SpecialIds, decode
from laconic.errors import ConfigError
from laconic.models.layers import Features
from laconic.models.object_relation import ObjectRelation
from laconic.models.transformer import ATTENTIONS
from laconic.spec.captioners import PROJECTIONS, ObjectRelationConfig
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.spec.tokens import SPECIAL
from laconic.text import SPECIALS, Vocabulary

published_name = runpy.run_path(str(Path(__file__).with_name("relation_names.py")))["published_name"]

VARIANTS = ("unshared", "acort", "all_shared_qk")
THEIRS = SpecialIds(pad=0, unk=-1, bos=7, eos=8)


@pytest.fixture(scope="module")
def tiny(golden) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with np.load(golden / "acort/tiny.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file}
    return json.loads((golden / "acort/tiny.json").read_text())["variants"], arrays


def options_of(theirs: dict[str, Any]) -> dict[str, Any]:
    """Our options for theirs, which are the same in encoder and decoder."""
    assert theirs["share_layer_encoder"] == theirs["share_layer_decoder"]
    assert theirs["share_att_encoder"] == theirs["share_att_decoder"]
    order = tuple(theirs["share_layer_encoder"] or ())
    return {
        "layers": theirs["num_layers"], "share_layers": order, "share_attention": theirs["share_att_encoder"] or "none",
    }  # fmt: skip


def names_of(model: ObjectRelation) -> dict[str, str]:
    c = model.config
    return {name: published_name(name, c.share_attention, c.share_layers) for name, _ in model.named_parameters()}


def published(
    tiny: tuple[dict[str, Any], dict[str, Tensor]], variant: str
) -> tuple[ObjectRelation, Features, dict[str, Any], dict[str, Tensor]]:
    """The captioner with the published weights, what it reads, and what is known of it."""
    known, arrays = tiny[0][variant], tiny[1]
    sizes = {"width": 16, "feed_forward": 24, "heads": 2}
    model = ObjectRelation(ObjectRelationConfig(9, 10, 1, **sizes, **options_of(known["options"]))).eval()
    shapes, flat, theirs = known["tensors"], arrays[f"{variant}__flat"], {}
    for name, shape in shapes:
        theirs[name], flat = flat[: np.prod(shape)].view(shape), flat[np.prod(shape) :]
    weights = {}
    for name, other in names_of(model).items():
        weights[name] = torch.cat([theirs.pop(other.format(head=head)) for head in range(2 if "{" in other else 1)])
    model.load_state_dict(weights)
    assert not theirs
    assert not len(flat)
    features = Features(arrays["att_feats"], torch.zeros(3, 1), arrays["boxes"], arrays["att_masks"] > 0)
    held = {key: arrays[f"{variant}__{key}"] for key in ("memory", "logprobs")}
    return model, features, known, {**held, "labels": arrays["labels"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_values_and_gradients(tiny, variant):
    model, features, known, held = published(tiny, variant)
    memory: list[Tensor] = []
    model.encoder_norm.register_forward_hook(lambda _, __, output: memory.append(output))
    tokens = held["labels"].unsqueeze(1)
    wanted = tokens[:, 0, 1:] != 0
    logits = model(features, tokens)
    torch.testing.assert_close(memory[0], held["memory"][features.valid], rtol=0, atol=2e-4)
    torch.testing.assert_close(logits.log_softmax(-1), held["logprobs"][wanted], rtol=0, atol=2e-4)
    loss = F.cross_entropy(logits, tokens[:, 0, 1:][wanted])
    assert loss.item() == pytest.approx(known["xe_loss"], rel=1e-4)
    loss.backward()
    for name, theirs in names_of(model).items():
        found = model.get_parameter(name).grad
        assert found is not None
        heads = found.chunk(2) if "{" in theirs else (found,)
        for head, part in enumerate(heads):
            norm = known["grad_norms"][theirs.format(head=head)]
            assert part.norm().item() == pytest.approx(norm, rel=2e-3, abs=2e-6), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_captions_are_those_of_teacher_forcing(tiny, variant):
    """Not those of the published search, whose places of one layer see each other's words."""
    model, features, known, _ = published(tiny, variant)
    found = decode(model, features, Decoding(beam=1, max_length=10, allow_unknown=True), THEIRS)
    clean = known["clean_greedy"]
    for (best,), ids, log_probs in zip(found, clean["ids"], clean["logprobs"], strict=True):
        said = [i for i in ids if i]
        assert [*best.tokens, *([8] if best.finished else [])] == said
        np.testing.assert_allclose(best.log_probs, log_probs[: len(said)], atol=2e-4)
    if variant == "unshared":  # where nothing can be mixed
        three = decode(model, features, Decoding(beam=3, max_length=10, allow_unknown=True), THEIRS)
        for ours, theirs in zip(three, known["published_cached_beam3"], strict=True):
            assert [h.score for h in ours] == pytest.approx([h["sum"] for h in theirs], abs=2e-4)


def test_parameters_are_as_published(golden):
    table = json.loads((golden / "acort/parameters.json").read_text())
    for row in table.values():
        theirs = row["options"]
        if theirs["d_model"] % (2 * theirs["num_heads"]):  # a baseline with heads of 13 numbers, which ours has not
            continue
        options = {
            "width": theirs["d_model"], "feed_forward": theirs["dim_feedforward"], "heads": theirs["num_heads"],
            **options_of(theirs),
        }  # fmt: skip
        config = ModelConfig(EncoderConfig("regions", channels=2048), DecoderConfig("object_relation", options))
        words = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(theirs["vocab_size"] - len(SPECIALS)))))
        model = outline(config, words).decoder
        assert sum(p.numel() for p in model.parameters()) == row["total"]
        assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == row["matrices"]
        assert sum(p.numel() for p in model.state_dict().values()) == row["total"]  # theirs: several times as many
        if "tensors" in row:
            found = {}
            for name, other in names_of(model).items():
                heads, shape = 8 if "{" in other else 1, model.get_parameter(name).shape
                found |= {other.format(head=head): [shape[0] // heads, *shape[1:]] for head in range(heads)}
            assert found == dict(row["tensors"])


def make(**changes: Any) -> ObjectRelation:
    """A small captioner in float64, every parameter drawn, biases too."""
    sizes = {"layers": 4, "width": 16, "feed_forward": 24, "heads": 2, "input_dropout": 0.0, "dropout": 0.0}
    torch.manual_seed(0)
    model = ObjectRelation(ObjectRelationConfig(17, 6, 5, **sizes | changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    return model


SHARED = {
    "kv": {"share_attention": "kv"},
    "qk": {"share_attention": "qk"},
    "layers": {"share_layers": (0, 0, 1, 1)},
    "cycle": {"share_layers": (0, 1, 0, 1)},
    "kv, layers": {"share_attention": "kv", "share_layers": (0, 0, 0, 0)},
    "qk, cycle": {"share_attention": "qk", "share_layers": (0, 1, 0, 1)},
}


def as_if_unshared(model: ObjectRelation) -> ObjectRelation:
    """The captioner that says the same with copies in the place of what is shared."""
    c = model.config
    plain, held = make(), model.state_dict()
    weights = {}
    for name in plain.state_dict():
        theirs = name
        for role, layer in zip(PROJECTIONS["none"], PROJECTIONS[c.share_attention], strict=True):
            theirs = theirs.replace(f"ttention.{role}.", f"ttention.{layer}.")
        head, _, rest = theirs.partition(".")
        place, _, rest = rest.partition(".")
        weights[name] = held[f"{head}.{c.order[int(place)]}.{rest}" if place.isdigit() else theirs]
    plain.load_state_dict(weights)
    return plain


@pytest.mark.parametrize("options", SHARED.values(), ids=SHARED)
def test_sharing_is_equal_weights_with_gradients_that_add_up(options):
    model = make(**options)
    plain = as_if_unshared(model)
    features = Features(torch.randn(2, 9, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64))
    tokens = torch.tensor([[[2, 5, 6, 7, 3]], [[2, 8, 3, 0, 0]]])
    found, expected = model(features, tokens), plain(features, tokens)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weights).sum(), list(model.parameters()))
    apart = torch.autograd.grad((expected * weights).sum(), list(plain.parameters()))
    total = {True: sum(g.sum() for g in gradients), False: sum(g.sum() for g in apart)}
    torch.testing.assert_close(total[True], total[False])
    assert count_weights(model).total < count_weights(plain).total
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("options", SHARED.values(), ids=SHARED)
def test_folding_changes_nothing_and_twice_is_as_good_as_once(options):
    model = make(**options).eval()
    features = Features(torch.randn(2, 9, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64))
    tokens = torch.tensor([[[2, 5, 6, 7, 3]], [[2, 8, 3, 0, 0]]])
    expected = model(features, tokens)
    model.fold()
    torch.testing.assert_close(model(features, tokens), expected)
    for layer in model.decoder:
        *_, value = layer.attention.layers
        assert not value.bias.any()
        assert not layer.attention_norm.bias.any()
        stays = options.get("share_attention") == "qk"  # one layer reads words and memory, behind norms of their own
        assert bool(layer.memory_norm.bias.any()) == stays
    assert bool(model.encoder_norm.bias.any()) == stays
    once = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.fold()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, once[name])


def test_words_are_kept_for_each_place():
    model = make(share_attention="kv", share_layers=(0, 0, 1, 1)).eval()
    features = Features(torch.randn(2, 9, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64))
    _, _, state = model.step(model.start(features), np.full(2, SPECIAL.bos), 3)
    assert len(state.words) == 4
    assert not torch.equal(state.words[0].keys, state.words[1].keys)
    assert len(state.memory.layers) == 2
    assert state.memory.layers[0].keys is state.memory.layers[0].values


def test_every_way_to_share_has_a_class_and_names():
    assert ATTENTIONS.keys() == PROJECTIONS.keys()
    for share, kind in ATTENTIONS.items():
        names = {name for name, _ in kind(8, 2, 0.0).named_children()}
        assert names == {*PROJECTIONS[share], "output"}


@pytest.mark.parametrize("order", [(0, 0), (0, 0, 0, 0, 0), (1, 0, 1, 0), (0, 0, 2, 1), (0, 0, 0, -1), (0, 1, 3, 2)])
def test_impossible_orders_are_named(order):
    with pytest.raises(ConfigError, match=r"share_layers = \[.*layers = 4 places"):
        ObjectRelationConfig(9, 3, 3, layers=4, share_layers=order)
