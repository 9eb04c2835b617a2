"""Which groups are found, and what a unit of each costs."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from laconic.compress.structured.adapters import find_groups
from laconic.compress.structured.groups import Adapter, Group
from laconic.errors import PruningError
from laconic.models.layers import Features
from laconic.models.object_relation import ObjectRelation, ObjectRelationConfig


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


class Mystery(nn.Module):
    """Attention as a user may have it, of a class that nobody knows."""


class GroupedAttention(Mystery):
    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.out(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


MINE = Adapter("attention", ("to_q", "to_k", "to_v"), ("out",), heads="heads", scale="width")


def costs(model: nn.Module) -> set[tuple[str, int, int]]:
    return {(group.part, group.size, group.parameters) for group in find_groups(model)}


@pytest.fixture(scope="module")
def published(request) -> dict:
    path = request.getfixturevalue("golden") / "upop" / "costs.json"
    return json.loads(path.read_text())


def test_costs_of_units_of_blip(transformers, published):
    unit = published["unit_costs"]["BLIP-base vision/text"]
    text = {"num_attention_heads": 12, "num_hidden_layers": 1}
    config = transformers.BlipConfig(text_config=text, vision_config={"num_hidden_layers": 1})
    with torch.device("meta"):
        model = transformers.BlipForQuestionAnswering(config)
    attention, mlp = (64, unit["attn_unit_params"]), (3072, unit["mlp_unit_params"])
    assert costs(model) == {
        ("vision attention", *attention),
        ("vision feed-forward", *mlp),
        *((f"text {tower} {role}", *attention) for tower in ("encoder", "decoder") for role in ("self", "cross")),
        *((f"text {tower} feed-forward", *mlp) for tower in ("encoder", "decoder")),
    }


def test_costs_of_units_of_clip(transformers, published):
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 1}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 1}
    with torch.device("meta"):
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
    large, small = published["unit_costs"]["CLIP-L vision"], published["unit_costs"]["CLIP-L text"]
    assert costs(model) == {
        ("vision attention", 64, large["attn_unit_params"]),
        ("vision feed-forward", 4096, large["mlp_unit_params"]),
        ("text attention", 64, small["attn_unit_params"]),
        ("text feed-forward", 3072, small["mlp_unit_params"]),
    }


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
def test_costs_of_small_vision_transformers(transformers, published, kind):
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_labels": 1000}
    model_class = getattr(transformers, f"{kind}ForImageClassification")
    with torch.device("meta"):
        model = model_class(model_class.config_class(**sizes)).train()
        groups = find_groups(model, {"pixel_values": torch.zeros(1, 3, 224, 224)})
    unit = published["unit_costs"]["DeiT-S / Seg-S"]
    assert len(groups) == 24
    assert {(g.size, g.parameters) for g in groups} == {(64, unit["attn_unit_params"]), (1536, unit["mlp_unit_params"])}
    assert all(module.training for module in model.modules())
    rows = 197 if kind == "ViT" else 198
    attention, mlp = groups[0], groups[1]
    assert attention.macs == rows * (6 * 4 * 384 + 2 * 6 * rows)
    assert mlp.macs == rows * 2 * 384
    if kind == "ViT":  # with patches, norms (5 an element) and head it is the published total
        rest = 196 * 768 * 384 + 25 * 197 * 384 * 5 + 384 * 1000
        total = sum(group.size * group.macs for group in groups) + rest
        assert total == round(published["deit_small_224"]["gmacs"] * 1e9)


def test_multiply_adds_of_blip_count_queries_and_keys(transformers):
    vision = {"hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 3}
    text = {**vision, "encoder_hidden_size": 24, "vocab_size": 30}
    vision |= {"image_size": 16, "patch_size": 8}
    model = transformers.BlipForConditionalGeneration(transformers.BlipConfig(text_config=text, vision_config=vision))
    inputs = {"pixel_values": torch.randn(2, 3, 16, 16), "input_ids": torch.randint(3, 30, (2, 7))}
    macs = {group.part: group.macs for group in find_groups(model, inputs)}
    assert macs == {
        "vision attention": 2 * (5 * 3 * 4 * 24 + 2 * 3 * 5 * 5),
        "vision feed-forward": 2 * 5 * 2 * 24,
        "text decoder self": 2 * (7 * 3 * 4 * 24 + 2 * 3 * 7 * 7),
        "text decoder cross": 2 * ((2 * 7 + 2 * 5) * 3 * 24 + 2 * 3 * 7 * 5),
        "text decoder feed-forward": 2 * 7 * 2 * 24,
    }


def test_groups_of_our_own_captioner():
    model = ObjectRelation(ObjectRelationConfig(17, 6, 5, layers=1, width=16, feed_forward=24, heads=2))
    features = Features(torch.randn(3, 9, 6), torch.randn(3, 5))
    words = torch.randint(4, 17, (3, 1, 6))
    groups = find_groups(model, lambda model: model(features, words))
    assert [(g.name, g.part, g.size, g.parameters, g.macs) for g in groups] == [
        ("encoder.0.attention", "encoder attention", 8, 134, 3 * (9 * 2 * 4 * 16 + 2 * 2 * 9 * 9)),
        ("encoder.0.feed_forward", "encoder feed-forward", 24, 33, 3 * 9 * 2 * 16),
        ("decoder.0.attention", "decoder attention", 8, 134, 3 * (5 * 2 * 4 * 16 + 2 * 2 * 5 * 5)),
        ("decoder.0.memory_attention", "decoder cross", 8, 134, 3 * (28 * 2 * 16 + 2 * 2 * 5 * 9)),
        ("decoder.0.feed_forward", "decoder feed-forward", 24, 33, 3 * 5 * 2 * 16),
    ]


def test_twin_attention_writes_to_the_projection_of_its_number(transformers):
    class Twin(nn.Module):
        def __init__(self, config) -> None:
            super().__init__()
            from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

            self.self0 = BlipTextSelfAttention(config, True)
            self.self1 = BlipTextSelfAttention(config, True)
            self.output = nn.ModuleDict({"dense0": nn.Linear(24, 24), "dense1": nn.Linear(24, 24)})

    config = transformers.BlipTextConfig(hidden_size=24, encoder_hidden_size=24, num_attention_heads=3)
    model = nn.ModuleDict({"text_encoder": nn.ModuleDict({"crossattention": Twin(config)})})
    assert [(group.consumers, group.part) for group in find_groups(model)] == [
        (("text_encoder.crossattention.output.dense0",), "text encoder cross"),
        (("text_encoder.crossattention.output.dense1",), "text encoder cross"),
    ]


def test_attention_of_an_unknown_class_is_named():
    model = nn.ModuleDict({"tower": nn.ModuleList([GroupedAttention()])})
    with pytest.raises(PruningError, match=r"GroupedAttention at 'tower\.0'.*docs/EXTEND\.md"):
        find_groups(model)
    with pytest.raises(PruningError, match="MultiheadAttention at 'tower'"):
        find_groups(nn.ModuleDict({"tower": nn.MultiheadAttention(8, 2)}))


@pytest.mark.parametrize("name", ["GroupedAttention", f"{__name__}.GroupedAttention", "Mystery"])
def test_an_adapter_teaches_a_class_and_those_that_derive_from_it(name):
    model = nn.ModuleDict({"tower": nn.ModuleList([GroupedAttention()])})
    (group,) = find_groups(model, lambda model: model["tower"][0](torch.randn(2, 5, 8)), adapters={name: MINE})
    assert group == Group(
        "tower.0", "attention", "tower attention", 4, ("tower.0.to_q", "tower.0.to_k", "tower.0.to_v"),
        ("tower.0.out",), parameters=2 * 4 * 8, macs=10 * 2 * 4 * 8 + 2 * 2 * 2 * 25,
    )  # fmt: skip


def test_an_adapter_that_does_not_fit_is_refused():
    model = nn.ModuleDict({"tower": GroupedAttention()})
    wrong = Adapter("attention", ("to_q", "to_k", "to_values"), ("out",), heads="heads")
    with pytest.raises(PruningError, match=r"names 'tower\.to_values', which is no nn\.Linear"):
        find_groups(model, adapters={"GroupedAttention": wrong})
    with pytest.raises(PruningError, match="has no number of heads 'n_heads'"):
        find_groups(model, adapters={"GroupedAttention": replace(MINE, heads="n_heads")})
    with pytest.raises(PruningError, match="adapter needs `pairs`"):
        find_groups(model, lambda model: model["tower"].to_q(torch.ones(1, 1, 8)), adapters={"GroupedAttention": MINE})
    model["tower"].to_k = nn.Linear(8, 4)  # keys of one head for two of queries
    with pytest.raises(PruningError, match="do not agree on 2 heads of 4 units"):
        find_groups(model, adapters={"GroupedAttention": MINE})


def test_a_module_at_two_paths_is_found_once():
    attention = GroupedAttention()
    groups = find_groups(nn.ModuleList([attention, attention]), adapters={"GroupedAttention": MINE})
    assert [group.name for group in groups] == ["0"]


def test_tied_weights_are_refused():
    first, second = GroupedAttention(), GroupedAttention()
    second.to_k.weight = first.to_k.weight
    model, adapters = nn.ModuleList([first, second]), {"GroupedAttention": MINE}
    with pytest.raises(PruningError, match=r"'1\.to_k' shares its weight with '0'"):
        find_groups(model, adapters=adapters)
    assert len(find_groups(model, where=lambda group: group.name == "0", adapters=adapters)) == 1


def test_some_groups_only_or_an_error_where_there_are_none():
    model = ObjectRelation(ObjectRelationConfig(17, 6, 5, layers=1, width=16, feed_forward=24, heads=2))
    groups = find_groups(model, where=lambda group: group.kind == "attention")
    assert [group.kind for group in groups] == ["attention"] * 3
    with pytest.raises(PruningError, match="where `where` asks for it"):
        find_groups(model, where=lambda group: group.size > 100)
    with pytest.raises(PruningError, match="Sequential holds no attention or feed-forward network"):
        find_groups(nn.Sequential(nn.Linear(3, 3)))
