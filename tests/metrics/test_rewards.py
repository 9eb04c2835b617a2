"""Rewards against golden values of the published code, and the same through ids as through words."""

import json
from pathlib import Path

import numpy as np
import pytest

from laconic.errors import DataError
from laconic.metrics import Bleu, CiderD, DocumentFrequency
from laconic.metrics.rewards import Rewards, mean_of_others


@pytest.fixture(scope="module")
def data(golden: Path) -> dict:
    return json.loads((golden / "smp" / "c_ciderd_rewards.json").read_text())


def samples(data: dict) -> tuple[list[str], np.ndarray]:
    """All hypotheses of all images one after another, and the image of each."""
    flat = [caption for group in data["hypotheses"] for caption in group]
    return flat, np.repeat(np.arange(len(data["hypotheses"])), 4)


@pytest.mark.parametrize(("setting", "bleu"), [("C1B0", 0.0), ("C1B0001", 1.0)])
def test_golden_rewards_baselines_and_advantages(data, setting, bleu):
    frequency = DocumentFrequency(data["document_frequency"], 113287)
    flat, images = samples(data)
    rewards = Rewards(data["references"], bleu=bleu, document_frequency=frequency)(flat, images)
    expected = data["results"][f"{setting}_sample_baseline"]
    np.testing.assert_allclose(rewards.reshape(5, 4), expected["reward_of_sample"], atol=1e-9)
    baseline = mean_of_others(rewards, images)
    np.testing.assert_allclose(baseline.reshape(5, 4), expected["baseline"], atol=1e-9)
    np.testing.assert_allclose((rewards - baseline).reshape(5, 4), expected["advantage"], atol=1e-9)


def test_golden_greedy_baseline(data):
    """The first hypothesis of each image stands for its greedy caption."""
    frequency = DocumentFrequency(data["document_frequency"], 113287)
    rewards = Rewards(data["references"], document_frequency=frequency)(*samples(data)).reshape(5, 4)
    expected = data["results"]["C1B0001_greedy_baseline"]
    np.testing.assert_allclose(rewards[:, :1].repeat(4, 1), expected["baseline"], atol=1e-9)
    np.testing.assert_allclose(rewards - rewards[:, :1], expected["advantage"], atol=1e-9)


def test_ids_score_as_the_words_they_stand_for(data):
    flat, images = samples(data)
    numbers: dict[str, int] = {}

    def ids(caption: str) -> tuple[int, ...]:
        return tuple(numbers.setdefault(word, 7 + len(numbers)) for word in caption.split())

    references = [[ids(caption) for caption in group] for group in data["references"]]
    by_ids = Rewards(references, cider=0.5, bleu=2.0)([ids(caption) for caption in flat], images)
    by_words = Rewards(data["references"], cider=0.5, bleu=2.0)(flat, images)
    np.testing.assert_array_equal(by_ids, by_words)


def test_weights_add_up_cider_and_bleu_scored_apart(data):
    flat, images = samples(data)
    bleu = [Bleu([data["references"][i]]).sentences([c])[0, 3] for c, i in zip(flat, images, strict=True)]
    expected = 0.5 * CiderD(data["references"]).score(flat, images) + 3 * np.array(bleu)
    np.testing.assert_allclose(Rewards(data["references"], cider=0.5, bleu=3.0)(flat, images), expected, rtol=1e-12)


def test_an_ended_caption_beats_one_that_breaks_off():
    """The published reward cannot see this difference, and 29 to 36 % of its captions end in a function word."""
    end = 3
    rewards = Rewards([[[5, 6, 7, end], [5, 6, 8, end]], [[9, 7, end]]])
    ended, broken_off = rewards([[5, 6, 7, end], [5, 6, 7]], [0, 0])
    assert ended > broken_off


def test_mean_of_others():
    images = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(mean_of_others(np.array([1.0, 2.0, 6.0, 5.0]), images), [4.0, 3.5, 1.5, 0.0])


def test_images_that_do_not_fit():
    rewards = Rewards([[[5, 6]], [[7]]])
    assert rewards([], []).shape == (0,)
    with pytest.raises(DataError, match=r"0\.\.1"):
        rewards([[5]], [2])
    with pytest.raises(DataError, match="2 candidates for 1 images"):
        rewards([[5], [6]], [0])
    with pytest.raises(DataError, match="none for image 1"):
        Rewards([[[5]], []])
