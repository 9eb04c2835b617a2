"""Slim models give what their masked originals give, whatever is left of them."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from laconic.compress.structured.adapters import find_groups
from laconic.compress.structured.groups import Adapter, Group, Groups
from laconic.compress.structured.shrink import resize, shrink
from laconic.errors import FormatError, PruningError
from laconic.models.layers import Features
from laconic.models.object_relation import ObjectRelation, ObjectRelationConfig
from laconic.models.transformer import Attention, FeedForward, Packing

VISION = {
    "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": 16, "patch_size": 8, "initializer_range": 0.3,
}  # fmt: skip
TEXT = {
    "vocab_size": 30, "hidden_size": 24, "encoder_hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 3, "max_position_embeddings": 32, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 2,
}  # fmt: skip
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
WORDS = torch.tensor([[1, 5, 8, 3, 2], [1, 9, 4, 6, 2]])
SHARED: dict[str, dict] = {  # options of our own captioner
    "relation": {},
    "relation-kv": {"share_attention": "kv", "layers": 3, "share_layers": (0, 1, 0)},
    "relation-qk": {"share_attention": "qk"},
}
NAMES = ("caption", "vqa", "retrieval", "clip", "vit", "deit", *SHARED)


def make(name: str) -> nn.Module:
    """A tiny model with random parameters everywhere, biases and norms too."""
    torch.manual_seed(0)
    if name in SHARED:
        sizes = {"layers": 2, "width": 16, "feed_forward": 24, "heads": 2, "input_dropout": 0.0, "dropout": 0.0}
        model: nn.Module = ObjectRelation(ObjectRelationConfig(17, 6, 5, **sizes | SHARED[name]))
    else:
        model = _of_transformers(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def _of_transformers(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    if name in ("vit", "deit"):
        cls = {"vit": transformers.ViTForImageClassification, "deit": transformers.DeiTForImageClassification}[name]
        return cls(cls.config_class(**VISION, num_labels=4))
    if name == "clip":
        config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)
        return transformers.CLIPModel(config)
    config = transformers.BlipConfig(text_config=TEXT, vision_config=VISION, image_text_hidden_size=8)
    return {
        "caption": transformers.BlipForConditionalGeneration,
        "vqa": transformers.BlipForQuestionAnswering,
        "retrieval": transformers.BlipForImageTextRetrieval,
    }[name](config)


def answer(name: str, model: nn.Module) -> torch.Tensor:
    if name in SHARED:
        generator = torch.Generator().manual_seed(2)
        features = Features(torch.randn(2, 9, 6, generator=generator), torch.randn(2, 5, generator=generator))
        return model(features, WORDS.view(2, 1, -1))
    if name in ("vit", "deit"):
        return model(pixel_values=PIXELS).logits
    if name == "clip":
        return model(pixel_values=PIXELS, input_ids=WORDS).logits_per_image
    if name == "vqa":
        found = model(pixel_values=PIXELS, input_ids=WORDS, decoder_input_ids=WORDS, labels=WORDS)
        return torch.cat([found.loss.flatten(), found.image_embeds.flatten()])
    if name == "retrieval":
        return model(pixel_values=PIXELS, input_ids=WORDS).itm_score
    return model(pixel_values=PIXELS, input_ids=WORDS).logits


def masks(groups: Groups, widths: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    """Random units to keep; the first groups of each kind keep as many as `widths` says."""
    generator = torch.Generator().manual_seed(3)
    wanted = {kind: list(widths) for kind in ("attention", "feed_forward")}
    keep = {}
    for group in groups:
        width = wanted[group.kind].pop(0) if wanted[group.kind] else group.size // 2 + 1
        keep[group.name] = torch.zeros(group.size, dtype=torch.bool)
        keep[group.name][torch.randperm(group.size, generator=generator)[:width]] = True
    return keep


def masked(model: nn.Module, keep: dict[str, torch.Tensor]) -> nn.Module:
    """A copy whose units are masked as in a search: outputs of producers times zeros and ones."""
    model = copy.deepcopy(model)
    for group in find_groups(model):
        for path in group.producers:
            layer = model.get_submodule(path)
            mask = keep[group.name].float().repeat(layer.out_features // group.size)
            layer.register_forward_hook(lambda _, __, output, mask=mask: output * mask)
    return model


@pytest.mark.parametrize("widths", [(), (0, 1, 0, 1, 0, 1), (1, 0, 1, 0, 1, 0), (0,) * 9], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_shrunk_model_gives_what_the_masked_one_gives(name, widths):
    model = make(name)
    keep = masks(find_groups(model), widths)
    expected = answer(name, masked(model, keep))
    before = sum(parameter.numel() for parameter in model.parameters())
    gone = sum(group.parameters * int((~keep[group.name]).sum()) for group in find_groups(model))
    assert (answer(name, model) - expected).abs().max() > 1e-3
    assert shrink(find_groups(model), keep) is model
    torch.testing.assert_close(answer(name, model), expected, rtol=1e-5, atol=1e-5)
    assert sum(parameter.numel() for parameter in model.parameters()) == before - gone


@pytest.mark.parametrize("name", NAMES)
def test_resized_model_takes_the_weights_and_is_the_same(name):
    slim = make(name)
    groups = find_groups(slim)
    keep = masks(groups, (0, 1))
    shrink(groups, keep)
    loaded = make(name)
    resize(loaded, {name: int(mask.sum()) for name, mask in keep.items()})
    loaded.load_state_dict(slim.state_dict())
    assert torch.equal(answer(name, loaded), answer(name, slim))


@pytest.mark.parametrize("name", NAMES)
def test_slim_model_trains(name):
    model = make(name)
    groups = find_groups(model)
    shrink(groups, masks(groups, (0, 1)))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    before = answer(name, model).detach()
    answer(name, model).square().sum().backward()
    optimizer.step()
    after = answer(name, model).detach()
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", NAMES)
def test_shrinks_again(name):
    model = make(name)
    keep = masks(find_groups(model))
    shrink(find_groups(model), keep)
    again = find_groups(model)
    assert {group.name: group.size for group in again} == {name: int(mask.sum()) for name, mask in keep.items()}
    further = masks(again, (0, 1, 2))
    expected = answer(name, masked(model, further))
    shrink(again, further)
    torch.testing.assert_close(answer(name, model), expected, rtol=1e-5, atol=1e-5)
    if hasattr(model.config, "to_dict"):
        assert model.config.slim_dims == {name: int(mask.sum()) for name, mask in further.items()}
        assert model.config.to_dict()["slim_dims"] == model.config.slim_dims


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("widths", [(), (4, 4, 0, 0, 1, 0), (0,) * 9], ids=str)
def test_captions_with_a_cache_stay_the_same(widths, beams):
    model = make("caption")
    keep = masks(find_groups(model), widths)
    options = {"num_beams": beams, "max_new_tokens": 8, "min_new_tokens": 5}
    expected = masked(model, keep).generate(pixel_values=PIXELS, **options)
    shrink(find_groups(model), keep)
    assert torch.equal(model.generate(pixel_values=PIXELS, **options), expected)
    assert torch.equal(model.generate(pixel_values=PIXELS, use_cache=False, **options), expected)


def test_search_of_our_own_captioner_steps_as_it_reads():
    model = make("relation")
    groups = find_groups(model)
    shrink(groups, masks(groups, (4, 4, 0, 1, 1, 0)))
    features = Features(torch.randn(2, 9, 6), torch.randn(2, 5))
    state = model.initial_state(features)
    steps = []
    for position in range(WORDS.shape[1] - 1):
        logits, state = model.next_logits(state, WORDS[:, position])
        steps.append(logits)
    together = model(features, WORDS.view(2, 1, -1)).view(2, -1, 17)
    torch.testing.assert_close(torch.stack(steps, 1), together, rtol=1e-4, atol=1e-5)


def test_parameters_keep_their_kind():
    model = make("vit").to(torch.float64)
    first, second = [group for group in find_groups(model) if group.kind == "attention"]
    layer = model.get_submodule(first.producers[0])
    layer.weight.requires_grad_(False)
    shrink(find_groups(model), {first.name: torch.arange(8) < 3})
    assert layer.weight.shape == (9, 24)
    assert layer.out_features == 9
    assert layer.weight.dtype == torch.float64
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad
    assert model.get_submodule(second.producers[0]).weight.shape == (24, 24)
    assert model.config.slim_dims == {first.name: 3}


def test_resizes_without_storage():
    with torch.device("meta"):
        model = make("caption")
        name = find_groups(model)[0].name
        resize(model, {name: 5})
    assert model.get_submodule(name).qkv.weight.shape == (45, 24)


class GoldenAttention(nn.Module):
    """The plain attention of the golden values, by the names that our own captioner's has."""

    def __init__(self, values: dict) -> None:
        super().__init__()
        own = self.attention = Attention(6, values["heads"], 0.0)
        for layer, letter in zip((own.query, own.key, own.value, own.output), "qkvo", strict=True):
            _fill(layer, values[f"W{letter}"], values[f"b{letter}"])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        packing = Packing(1, len(rows))
        return self.attention(rows, packing, self.attention.remember(rows, packing))


def _fill(layer: nn.Linear, weight: list, bias: list) -> None:
    layer.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
    layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))


def test_golden_attention(golden):
    values = json.loads((golden / "upop" / "physical_shrink.json").read_text())
    model = GoldenAttention(values)
    rows = torch.tensor(values["X"], dtype=torch.float64)
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(model(rows), torch.tensor(values["full"], dtype=torch.float64), **close)
    shrink(find_groups(model), {"attention": torch.tensor(values["alpha"]) == 1})
    assert model.attention.query.out_features == 4
    torch.testing.assert_close(model(rows), torch.tensor(values["shrunk_scale_kept"], dtype=torch.float64), **close)
    with torch.no_grad():  # what it would be if the fold were forgotten
        for parameter in model.attention.query.parameters():
            parameter.mul_(math.sqrt(3 / 2))
    other = torch.tensor(values["shrunk_scale_recomputed_1_over_sqrt_k"], dtype=torch.float64)
    torch.testing.assert_close(model(rows), other, **close)


def test_golden_feed_forward(golden):
    values = json.loads((golden / "upop" / "physical_shrink.json").read_text())
    ffn = values["ffn"]
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 6))
    _fill(model[0], ffn["W1"], ffn["b1"])
    _fill(model[2], ffn["W2"], ffn["b2"])
    group = Group("", "feed_forward", "feed-forward", 5, ("0",), ("2",), 13)
    shrink(Groups(model, (group,)), {"": torch.tensor(ffn["alpha"]) == 1})
    found = model(torch.tensor(values["X"], dtype=torch.float64))
    assert model[0].out_features == 3
    torch.testing.assert_close(found, torch.tensor(ffn["shrunk"], dtype=torch.float64), rtol=0, atol=1e-9)


def test_refuses_masks_that_do_not_fit():
    groups = find_groups(nn.ModuleDict({"net": FeedForward(4, 6, 0.0)}))
    with pytest.raises(PruningError, match="no group is called 'nets'"):
        shrink(groups, {"nets": torch.ones(6, dtype=torch.bool)})
    with pytest.raises(PruningError, match=r"bool of shape \(6,\), not torch.bool of shape \(5,\)"):
        shrink(groups, {"net": torch.ones(5, dtype=torch.bool)})
    with pytest.raises(PruningError, match=r"not torch\.float32"):
        shrink(groups, {"net": torch.ones(6)})
    assert groups.model["net"].inner.out_features == 6


@pytest.mark.parametrize("width", [7, -1, 2.0, True, "3", None])
def test_refuses_widths_that_cannot_be(width):
    model = nn.ModuleDict({"net": FeedForward(4, 6, 0.0)})
    with pytest.raises(FormatError, match="must be a number from 0 to 6"):
        resize(model, {"net": width})
    assert model["net"].inner.out_features == 6


def test_refuses_what_is_no_table():
    with pytest.raises(FormatError, match="must be a table of names and widths, not list"):
        resize(nn.Linear(2, 2), [3])


def test_an_adapter_of_the_user_serves_shrinking_and_loading():
    class OddAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.size = 2, 4
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (layer(x).unflatten(-1, (2, self.size)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            found = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(found.transpose(1, 2).flatten(2))

    odd = Adapter("attention", ("q", "k", "v"), ("out",), heads="heads", head_size="size", scale="width")
    adapters, keep, x = {"OddAttention": odd}, torch.tensor([True, False, True, True]), torch.randn(2, 5, 8)
    model = nn.ModuleDict({"net": OddAttention()})
    full = copy.deepcopy(model)
    with torch.no_grad():
        for layer in (full["net"].q, full["net"].k, full["net"].v):
            layer.weight *= keep.float().repeat(2).unsqueeze(1)
            layer.bias *= keep.float().repeat(2)
    shrink(find_groups(model, adapters=adapters), {"net": keep})
    assert model["net"].size == 3
    torch.testing.assert_close(model["net"](x), full["net"](x), rtol=1e-5, atol=1e-6)
    loaded = resize(nn.ModuleDict({"net": OddAttention()}), {"net": 3}, adapters=adapters)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded["net"](x), model["net"](x))


def test_refuses_a_width_of_what_is_not_there():
    with pytest.raises(FormatError, match=r"names 'a\\nb', which is no group of ModuleDict"):
        resize(nn.ModuleDict({"net": FeedForward(4, 6, 0.0)}), {"a\nb": 2})
