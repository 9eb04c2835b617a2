"""An encoder learns from captions which words an image shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from laconic.data import Scenes
from laconic.errors import TrainingError
from laconic.models.encoders import build_encoder, load_imagenet
from laconic.spec.model import EncoderConfig
from laconic.text import SPECIALS
from laconic.training import visual_concepts
from laconic.training.batches import Batch
from laconic.training.features import PixelCache
from laconic.training.settings import Training
from laconic.training.visual_concepts import ABSENT, WordDetection, WordDetector, learn_concepts

CONFIG = EncoderConfig("vgg_small", size=32, stride=16, norm=True)
SCENES = Scenes(24)
CAPTIONS = [SCENES[i].captions for i in range(len(SCENES))]
SETTINGS = Training(
    epochs=2, batch=8, learning_rate=3e-3, encoder_learning_rate=3e-3, warmup=2, precision="float32", mirror=False
)


@pytest.fixture(scope="module")
def source() -> PixelCache:
    return PixelCache.read(SCENES, CONFIG.size)


def test_a_word_is_as_likely_as_the_mean_of_its_cells_in_the_exponent():
    torch.manual_seed(0)
    detector = WordDetector(CONFIG, len(SPECIALS) + 3).eval()
    pixels = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        cells = detector.words(detector.encoder(pixels.permute(0, 3, 1, 2) / 127.5 - 1).grid)
        torch.testing.assert_close(detector(pixels), cells.exp().mean(1).log(), rtol=1e-4, atol=1e-5)


def test_every_word_of_any_caption_is_there_and_special_ones_are_not_asked_for():
    logits = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    tokens = torch.tensor([[[2, 4, 3, 0], [2, 6, 6, 3]]])
    loss = WordDetection()(lambda _: logits, Batch(torch.zeros(1), tokens, np.zeros(1)))
    absent = torch.nn.functional.softplus(logits[0, 1])
    present = ABSENT * torch.nn.functional.softplus(-logits[0, [0, 2]]).sum()
    torch.testing.assert_close(loss.mean, (absent + present) / 3)


def test_the_file_is_an_encoder_as_a_recipe_begins_with(source, tmp_path):
    path = learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path / "run")
    encoder = build_encoder(replace(CONFIG, norm=False))
    fresh = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    load_imagenet(encoder, path)
    assert all(not torch.equal(tensor, fresh[name]) for name, tensor in encoder.state_dict().items())
    assert sorted(file.name for file in path.parent.iterdir()) == ["encoder.json", "encoder.npz", "log.jsonl"]
    before = path.stat().st_mtime_ns
    assert learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path / "run").stat().st_mtime_ns == before


def test_what_is_learned_is_seen_in_the_loss(source, tmp_path):
    losses = []
    settings = replace(SETTINGS, epochs=15)
    learn_concepts(CONFIG, source, CAPTIONS, settings, tmp_path, show=lambda at: losses.append(at.loss))
    assert losses[-1] < 0.7 * losses[0]


def test_one_that_was_stopped_ends_the_same_and_other_settings_are_refused(source, tmp_path, monkeypatch):
    whole = learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path / "whole")
    objective = WordDetection.__call__
    calls = []

    def stopping(self, model, batch):
        calls.append(1)
        if len(calls) == 5:  # in the second of two epochs
            raise KeyboardInterrupt
        return objective(self, model, batch)

    with monkeypatch.context() as stops:
        stops.setattr(visual_concepts.WordDetection, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path / "parts")
    with pytest.raises(TrainingError, match="settings"):
        learn_concepts(CONFIG, source, CAPTIONS, replace(SETTINGS, epochs=3), tmp_path / "parts")
    parts = learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path / "parts")
    assert parts.read_bytes() == whole.read_bytes()


def test_a_finished_one_is_taken_for_what_it_was_learned_from_alone(source, tmp_path):
    path = learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path)
    before = path.read_bytes()
    assert learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path) == path
    with pytest.raises(TrainingError, match="trained with other settings; delete it"):
        learn_concepts(CONFIG, source, CAPTIONS, replace(SETTINGS, epochs=3), tmp_path)
    with pytest.raises(TrainingError, match="other vocabulary and training captions"):
        learn_concepts(CONFIG, source, [["another"], *CAPTIONS[1:]], SETTINGS, tmp_path)
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(TrainingError, match=r"encoder\.json: cannot be read"):
        learn_concepts(CONFIG, source, CAPTIONS, SETTINGS, tmp_path)
    assert path.read_bytes() == before
