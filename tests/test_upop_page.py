"""The code of docs/UPOP.md runs as it stands, one block after another, and does what the page says."""

import json
import re
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

PAGE = Path(__file__).parents[1] / "docs" / "UPOP.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)


def test_the_blocks_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24,
        intermediate_size=48,
        num_attention_heads=3,
        num_hidden_layers=2,
        image_size=16,
        patch_size=8,
        num_labels=5,
    )
    net = transformers.ViTForImageClassification(config)
    dense = sum(parameter.numel() for parameter in net.parameters())
    example = {"pixel_values": torch.randn(1, 3, 16, 16)}
    batches = [{"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.tensor([0, 1])} for _ in range(12)]
    page = {"torch": torch, "net": net, "example": example, "batches": batches}
    page["loss"] = lambda net, batch: net(**batch).loss
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(compile(block, PAGE.name, "exec"), page)
    prunable = sum(group.size * group.parameters for group in page["groups"])
    largest = max(group.parameters for group in page["groups"])
    gone = dense - sum(parameter.numel() for parameter in net.parameters())
    assert abs(gone - prunable / 2) <= largest
    assert json.loads((tmp_path / "slim" / "config.json").read_text())["slim_dims"]
