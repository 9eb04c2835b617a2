"""Captioners that were trained in few bits: masks kept, files bit-equal, and the engine says what PyTorch says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.engine import Engine
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save, shorten_floats
from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.quantized.aware import Quantizer
from laconic.decode.search import Decoding
from laconic.models.captioners import CAPTIONERS
from laconic.runtime.operations import WIDTHS
from laconic.runtime.planning import make_plan
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import BOS, EOS, Vocabulary
from laconic.training.loop import cross_entropy

OPTIONS = {
    "soft_attention": {"word": 24, "hidden": 40},
    "up_down": {"word": 24, "hidden": 40, "attention": 24},
    "object_relation": {"layers": 1, "width": 32, "feed_forward": 48, "heads": 4},
    "aoanet": {"layers": 1, "width": 36, "heads": 4},
}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)


def captioner_of(name: str) -> ImageCaptioner:
    """Of no training, loud enough to say many things; most of its weights are zero."""
    torch.manual_seed(0)
    words = Vocabulary.build([f"word{i} thing{i}" for i in range(20)], 1)
    config = ModelConfig(EncoderConfig("toy", 32, 16), DecoderConfig(name, OPTIONS[name]))
    captioner = ImageCaptioner(config, words)
    with torch.no_grad():
        for weight in captioner.decoder.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    Pruner(captioner, Magnitude(0.6)).finalize()
    return captioner


def learn(captioner: ImageCaptioner, optimizer: torch.optim.Optimizer, steps: int) -> None:
    tokens = torch.randint(4, len(captioner.vocabulary), (6, 2, 7))
    tokens[..., 0], tokens[..., -1] = BOS, EOS
    captioner.train()
    for _ in range(steps):
        cross_entropy(captioner(torch.from_numpy(PIXELS), tokens), tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    captioner.eval()


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("name", CAPTIONERS)
def test_what_was_trained_is_stored_and_said(name: str, bits: int, tmp_path: Path) -> None:
    captioner = captioner_of(name)
    zeros = {name: weight == 0 for name, weight in captioner.named_parameters() if weight.ndim > 1}
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=1e-3, weight_decay=0.1)
    pruner = Pruner(captioner, Frozen()).attach(optimizer)
    quantizer = Quantizer(captioner, bits, few=0).attach(optimizer)
    learn(captioner, optimizer, 4)
    pruner.finalize()
    quantizer.finalize()
    shorten_floats(captioner, quantizer.steps())
    said = captioner.caption(list(PIXELS), Decoding(2))
    state = {key: tensor.clone() for key, tensor in captioner.state_dict().items()}
    assert all(not state[key][zero].any() for key, zero in zeros.items())
    save(captioner, tmp_path / "file", "trained", steps=quantizer.steps())
    assert all(torch.equal(tensor, state[key]) for key, tensor in captioner.state_dict().items())
    back = load(tmp_path / "file")
    assert all(torch.equal(tensor, state[key]) for key, tensor in back.state_dict().items())
    packed = store.load(tmp_path / "file")
    assert {entry.values for entry in packed.entries.values()} == {"step", "f16"}
    assert {key for key, entry in packed.entries.items() if entry.values == "step"} == quantizer.bits.keys()
    assert Engine.load(tmp_path / "file").caption(list(PIXELS), Decoding(2)) == said
    plan = make_plan(packed)
    assert sum(plan.matrices["width"] == WIDTHS.index("INT8")) >= len(quantizer.bits) / 2


def test_floats_that_half_cannot_hold_stay_and_depthwise_kernels_too() -> None:
    captioner = captioner_of("up_down")
    with torch.no_grad():
        captioner.decoder.output.bias[:3] = torch.tensor([1e6, 1 / 3, -0.5])
    kernel, gates = captioner.encoder.block1.depthwise.weight.clone(), captioner.decoder.query.weight.clone()
    shorten_floats(captioner, {"decoder.query.weight": 0.1})
    assert captioner.decoder.output.bias[:3].tolist() == [1e6, float(np.float16(1 / 3)), -0.5]
    assert torch.equal(captioner.encoder.block1.depthwise.weight, kernel)
    assert torch.equal(captioner.decoder.query.weight, gates)
    assert torch.equal(captioner.decoder.key.weight.half().float(), captioner.decoder.key.weight)
