"""A captioner and an encoder are each a row of spec, a module and a row of models: nothing else knows their names."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.captioner.accounting import caption_operations, non_zeros
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.decode.search import Decoding
from laconic.models import captioners, encoders
from laconic.models.layers import Features
from laconic.models.torch_captioner import TorchCaptioner
from laconic.spec import captioners as captioner_rows
from laconic.spec import encoders as encoder_rows
from laconic.spec.encoders import EncoderFacts
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.spec.pixels import Normalization
from laconic.text import SPECIALS, Vocabulary


@dataclass(frozen=True)
class BagConfig:
    reads_boxes: ClassVar[bool] = False
    reads_pooled: ClassVar[bool] = True
    most_positions: ClassVar[int | None] = None

    vocabulary: int
    grid_channels: int
    pooled_channels: int
    width: int = 8


class State(NamedTuple):
    image: Tensor
    seen: Tensor


class Bag(TorchCaptioner[State]):
    """Next word from the image and the word before."""

    config: BagConfig
    output_bias = "output.bias"

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.config = config
        self.seen = nn.Linear(config.pooled_channels, config.width)
        self.word = nn.Embedding(config.vocabulary, config.width)
        self.output = nn.Linear(config.width, config.vocabulary)

    def fold(self) -> None:
        pass

    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        logits = self.output(F.relu(self.word(tokens[..., :-1]) + self.seen(features.pooled)[:, None, None]))
        return logits[tokens[..., 1:] != 0]

    def initial_state(self, features: Features) -> State:
        return State(torch.arange(len(features)), self.seen(features.pooled))

    def next_logits(self, state: State, ids: Tensor) -> tuple[Tensor, State]:
        return self.output(F.relu(self.word(ids) + state.seen[state.image])), state

    def select_rows(self, state: State, rows: Tensor) -> State:
        return state._replace(image=state.image[rows])


class Patches(nn.Module):
    """One convolution of the size of its stride."""

    def __init__(self, stride: int, norm: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, stride, stride)

    def forward(self, images: Tensor) -> Features:
        grid = self.patches(images).flatten(2).transpose(1, 2)
        return Features(grid, grid.mean(1))


def test_a_toy_captioner_over_a_toy_encoder_is_searched_packed_and_counted(monkeypatch, tmp_path):
    monkeypatch.setitem(captioner_rows.CAPTIONERS, "bag", BagConfig)
    monkeypatch.setitem(captioners.CAPTIONERS, "bag", Bag)
    how = Normalization((127.0,) * 3, (128.0,) * 3)
    monkeypatch.setitem(encoder_rows.ENCODERS, "patches", EncoderFacts({8: 6}, 6, how))
    monkeypatch.setitem(encoders.ENCODERS, "patches", Patches)
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("patches", size=32, stride=8), DecoderConfig("bag", {"width": 5}))
    captioner = ImageCaptioner(config, Vocabulary((*SPECIALS, "a", "dog", "runs")))
    photos = list(np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8))
    decoding = Decoding(beam=2, max_length=5)
    save(captioner, tmp_path / "toy", "exact")
    found = load(tmp_path / "toy")
    assert found.config == config
    assert found.caption(photos, decoding) == captioner.caption(photos, decoding)
    assert non_zeros(found)["decoder_weights"] == sum(p.numel() for p in found.decoder.parameters())
    assert caption_operations(found).encoder == 2 * 16 * 6 * 3 * 8 * 8
