"""What every captioner states: folding that changes nothing, its output bias, and steps in tensors alone."""

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from laconic.models.captioners import CAPTIONERS
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.spec import captioners as spec

PARTS, LAYERS = ("encoder", "decoder"), (0, 1)
SIZES = {"vocabulary": 11, "grid_channels": 5, "pooled_channels": 5}
SMALL = {
    "up_down": {"word": 4, "hidden": 6, "attention": 3},
    "object_relation": {"layers": 2, "width": 8, "feed_forward": 12, "heads": 2},
    "soft_attention": {"word": 4, "hidden": 6},
    "aoanet": {"layers": 2, "width": 8, "heads": 2, "feed_forward": 12},
}
EMPTIED = {
    "up_down": {"attention_lstm.bias_hh", "key.bias", "language_lstm.bias_hh", "score.bias"},
    "soft_attention": set(),
    "object_relation": {"decoder_norm.bias", "encoder_norm.bias"}
    | {f"{part}.{i}.{norm}_norm.bias" for part in PARTS for i in LAYERS for norm in ("attention", "feed_forward")}
    | {f"{part}.{i}.attention.{which}.bias" for part in PARTS for i in LAYERS for which in ("key", "value")}
    | {f"decoder.{i}.memory_attention.{which}.bias" for i in LAYERS for which in ("key", "value")}
    | {f"decoder.{i}.memory_norm.bias" for i in LAYERS},
    "aoanet": {"lstm.bias_hh", "query_norm.bias", "refiner_norm.bias", "value.bias"}
    | {f"refiner.{i}.{norm}_norm.bias" for i in LAYERS for norm in ("attention", "feed_forward")}
    | {f"refiner.{i}.attention.value.bias" for i in LAYERS},
}
KEPT = {"refiner_norm.weight"}  # of AoANet: a matrix that reads what it makes reads something else, too


def make(name: str) -> TorchCaptioner:
    torch.manual_seed(0)
    return CAPTIONERS[name](spec.CAPTIONERS[name](**SIZES, **SMALL[name])).eval()


@pytest.mark.parametrize("name", CAPTIONERS)
def test_folding_changes_nothing(name):
    model = make(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    valid = torch.arange(9) < torch.tensor([[9], [4]])
    grid = torch.rand(2, 9, 5) * valid.unsqueeze(2)
    corners = torch.rand(2, 9, 2)
    boxes = torch.cat([corners, corners + 0.2], -1)
    features = Features(grid, grid.mean(1), boxes, None if name == "soft_attention" else valid)
    tokens = torch.tensor([[[2, 5, 6, 7, 3, 0], [2, 8, 3, 0, 0, 0]], [[2, 9, 4, 10, 5, 3], [2, 4, 4, 3, 0, 0]]])

    with torch.no_grad():
        logits, first = model(features, tokens), model.step(model.start(features), tokens[:, 0, 0].numpy(), 11)
        model.fold()
        torch.testing.assert_close(model(features, tokens), logits, rtol=1e-4, atol=1e-4)
        found = model.step(model.start(features), tokens[:, 0, 0].numpy(), 11)
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(first[0]), rtol=1e-4, atol=1e-4)
    assert {parameter for parameter, p in model.named_parameters() if not p.any()} == EMPTIED[name]
    gains = {parameter: p for parameter, p in model.named_parameters() if parameter.endswith("norm.weight")}
    assert {parameter for parameter, gain in gains.items() if (gain != 1).any()} == KEPT & gains.keys()


@pytest.mark.parametrize("name", CAPTIONERS)
def test_the_output_bias_is_added_to_the_logits(name):
    model = make(name)
    features = Features(torch.rand(2, 9, 5), torch.rand(2, 5))
    before, _ = model.next_logits(model.initial_state(features), torch.tensor([2, 2]))
    change = torch.rand(SIZES["vocabulary"])
    with torch.no_grad():
        model.get_parameter(model.output_bias).add_(change)
        after, _ = model.next_logits(model.initial_state(features), torch.tensor([2, 2]))
    torch.testing.assert_close(after - before, change.expand(2, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_steps_are_tensors_throughout_and_keep_the_state_they_are_given(name):
    """A state is nested tuples of tensors, and the numpy steps of a search say the same."""
    model = make(name)
    features = Features(torch.rand(2, 9, 5), torch.rand(2, 5))
    with torch.no_grad():
        first = model.initial_state(features)
        _, state = model.next_logits(first, torch.tensor([2, 2]))
        held = [leaf.clone() for leaf in tree_leaves(state) if leaf is not None]
        rows = model.select_rows(state, torch.tensor([1, 1, 0]))
        logits, _ = model.next_logits(rows, torch.tensor([4, 5, 6]))
    for leaf, before in zip((leaf for leaf in tree_leaves(state) if leaf is not None), held, strict=True):
        assert torch.equal(leaf, before)
    _, _, state = model.step(model.start(features), np.array([2, 2]), 3)
    found, ids, _ = model.step(model.select(state, np.array([1, 1, 0])), np.array([4, 5, 6]), None)
    np.testing.assert_allclose(found, logits.log_softmax(-1).numpy(), rtol=1e-5, atol=1e-6)
    assert (ids.dtype, ids.shape, found.dtype) == (np.int64, (3, 11), np.float32)


def test_a_captioner_that_states_no_output_bias_cannot_be_made():
    class Unsaid(TorchCaptioner):
        def forward(self, features, tokens): ...
        def initial_state(self, features): ...
        def next_logits(self, state, ids): ...
        def select_rows(self, state, rows): ...
        def fold(self): ...

    with pytest.raises(TypeError, match="output_bias"):
        Unsaid()
