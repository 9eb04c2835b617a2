"""Folded captioners: same logits, same captions found, with regions of different number."""

import pytest
import torch

from laconic.models.captioners import CAPTIONERS
from laconic.models.fold import fold_biases
from laconic.models.layers import Features
from laconic.spec import captioners as spec

PARTS, LAYERS = ("encoder", "decoder"), (0, 1)
SIZES = {"vocabulary": 11, "grid_channels": 5, "pooled_channels": 5}
SMALL = {
    "up_down": {"word": 4, "hidden": 6, "attention": 3},
    "object_relation": {"layers": 2, "width": 8, "feed_forward": 12, "heads": 2},
    "soft_attention": {"word": 4, "hidden": 6},
}
EMPTIED = {
    "up_down": {"attention_lstm.bias_hh", "key.bias", "language_lstm.bias_hh", "score.bias"},
    "soft_attention": set(),
    "object_relation": {"decoder_norm.bias", "encoder_norm.bias"}
    | {f"{part}.{i}.{norm}_norm.bias" for part in PARTS for i in LAYERS for norm in ("attention", "feed_forward")}
    | {f"{part}.{i}.attention.{which}.bias" for part in PARTS for i in LAYERS for which in ("key", "value")}
    | {f"decoder.{i}.memory_attention.{which}.bias" for i in LAYERS for which in ("key", "value")}
    | {f"decoder.{i}.memory_norm.bias" for i in LAYERS},
}


@pytest.mark.parametrize("name", CAPTIONERS)
def test_folding_changes_nothing(name):
    torch.manual_seed(0)
    model = CAPTIONERS[name](spec.CAPTIONERS[name](**SIZES, **SMALL[name])).eval()
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
        fold_biases(model)
        torch.testing.assert_close(model(features, tokens), logits, rtol=1e-4, atol=1e-4)
        found = model.step(model.start(features), tokens[:, 0, 0].numpy(), 11)
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(first[0]), rtol=1e-4, atol=1e-4)
    assert {parameter for parameter, p in model.named_parameters() if not p.any()} == EMPTIED[name]
    gains = [p for parameter, p in model.named_parameters() if parameter.endswith("norm.weight")]
    assert all(bool((gain == 1).all()) for gain in gains)
