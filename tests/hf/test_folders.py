"""Folders of dense and slim models: what goes in comes out, and hostile or foreign folders are refused unharmed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")

from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
)

from laconic import hf
from laconic.compress.structured.adapters import find_groups
from laconic.compress.structured.shrink import shrink
from laconic.errors import FormatError, TrainingError

TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**TOWER, "image_size": 4, "patch_size": 1, "num_channels": 5, "initializer_range": 0.02}
TEXT = {**TOWER, "vocab_size": 30, "bos_token_id": 5, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
PIXELS = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
WORDS = torch.arange(7, 15).view(2, 4)


def blip() -> BlipConfig:
    return BlipConfig(text_config=dict(TEXT), vision_config=dict(VISION))


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor]]] = {
    "caption": (lambda: BlipForConditionalGeneration(blip()), {"pixel_values": PIXELS, "input_ids": WORDS}),
    "vqa": (
        lambda: BlipForQuestionAnswering(blip()),
        {"pixel_values": PIXELS, "input_ids": WORDS, "labels": WORDS},
    ),
    "nlvr2": (
        lambda: hf.BlipForVisualReasoning(blip()),
        {"pixel_values": torch.stack([PIXELS, PIXELS.flip(0)], 1), "input_ids": WORDS},
    ),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config=dict(TEXT), vision_config=dict(VISION))),
        {"pixel_values": PIXELS, "input_ids": WORDS},
    ),
    "vit": (lambda: ViTForImageClassification(ViTConfig(**VISION, num_labels=3)), {"pixel_values": PIXELS}),
    "segmenter": (
        lambda: hf.Segmenter(hf.SegmenterConfig(**VISION, num_labels=3, decoder_layers=1)),
        {"pixel_values": PIXELS},
    ),
}


def made(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model, inputs = MODELS[name]
    return hf.fit_channels(model()).eval(), inputs


def said(net: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Any = net(**inputs)
    if isinstance(found, Tensor):
        return found
    return next(found[key] for key in ("loss", "logits", "logits_per_image") if found.get(key) is not None)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    hf.save_pretrained(made("vit")[0], tmp_path / "vit")
    return tmp_path / "vit"


@pytest.mark.parametrize("slim", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_reloaded_model_says_the_same(name: str, slim: bool, tmp_path: Path) -> None:
    net, inputs = made(name)
    if slim:
        groups = find_groups(net)
        keep = {group.name: torch.arange(group.size) % 2 == 0 for group in groups}
        keep[groups[0].name][:] = False  # removed whole
        shrink(groups, keep)
    hf.save_pretrained(net, tmp_path / "net")
    again: Any = hf.from_pretrained(tmp_path / "net")
    assert type(again) is type(net)
    assert bool(getattr(again.config, "slim_dims", {})) == slim
    assert torch.equal(said(hf.honour_padding(net), inputs), said(again, inputs))
    hf.save_pretrained(again, tmp_path / "net")  # over itself
    assert torch.equal(said(again, inputs), said(hf.from_pretrained(tmp_path / "net"), inputs))


def test_nothing_else_is_taken_away(vit: Path) -> None:
    (vit / "thesis.tex").write_text("years of work")
    with pytest.raises(TrainingError, match=r"thesis\.tex"):
        hf.save_pretrained(made("vit")[0], vit)
    assert (vit / "thesis.tex").read_text() == "years of work"
    with pytest.raises(TrainingError, match="something else"):
        hf.save_pretrained(made("vit")[0], vit / "thesis.tex")


def test_a_save_that_fails_leaves_the_model_before(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (vit / "model.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    net = made("vit")[0]
    monkeypatch.setattr(type(net), "save_pretrained", full)
    with pytest.raises(TrainingError, match="no space left"):
        hf.save_pretrained(net, vit)
    assert (vit / "model.safetensors").read_bytes() == before
    assert [path.name for path in vit.parent.iterdir()] == ["vit"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["SomeonesModel"]}, "not known here"),
        ({"architectures": [{}]}, "not known here"),
        ({"architectures": []}, "configuration"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"attn_implementation": "someone/kernel"}, "attn_implementation"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
        ({"patch_size": 0}, "cannot be loaded"),
        ({"slim_dims": {"vit.layers.0.mlp": 99}}, "cannot be loaded"),
        ({"slim_dims": {"elsewhere": 1}}, "cannot be loaded"),
        ({"intermediate_size": 64}, "cannot be loaded|mismatched"),
    ],
)
def test_configurations_that_are_refused(vit: Path, change: dict[str, Any], message: str) -> None:
    config = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(FormatError, match=message):
        hf.from_pretrained(vit)


def test_files_that_are_refused(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no config\.json"):
        hf.from_pretrained(tmp_path / "nowhere")
    weights = (vit / "model.safetensors").read_bytes()
    (vit / "model.safetensors").write_bytes(weights[:-40])
    with pytest.raises(FormatError, match="cannot be loaded"):
        hf.from_pretrained(vit)
    (vit / "model.safetensors").unlink()
    (vit / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FormatError, match="pickles"):
        hf.from_pretrained(vit)
    (vit / "config.json").write_text("[" * 100)
    with pytest.raises(FormatError, match="configuration"):
        hf.from_pretrained(vit)
    (vit / "config.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(FormatError, match="at most"):
        hf.from_pretrained(vit)


def test_answers_do_not_hear_the_padding_of_others() -> None:
    net, _ = made("vqa")
    short = torch.tensor([[2, 9, 3]])
    padded = torch.cat([short, torch.zeros(1, 4, dtype=torch.int64)], 1)
    mask = (padded != 0).long()
    labels = torch.tensor([[5, 8, 3]])
    inputs = {"pixel_values": PIXELS[:1], "labels": labels}
    alone = {**inputs, "input_ids": short, "attention_mask": torch.ones_like(short)}
    batch = {**inputs, "input_ids": padded, "attention_mask": mask}
    assert abs(said(net, alone) - said(net, batch)) > 1e-6  # what transformers does
    hf.honour_padding(net)
    torch.testing.assert_close(said(net, alone), said(net, batch))


def test_sizes_are_those_of_the_published_models() -> None:
    with torch.device("meta"):
        nlvr2 = hf.BlipForVisualReasoning(
            BlipConfig(text_config={"num_attention_heads": 12}, vision_config={"image_size": 384})
        )
        width = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
        segmenter = hf.Segmenter(hf.SegmenterConfig(**width, image_size=512, num_labels=150))
    assert sum(parameter.numel() for parameter in nlvr2.parameters()) == 259_372_034
    assert sum(parameter.numel() for parameter in segmenter.parameters()) == 26_033_964
