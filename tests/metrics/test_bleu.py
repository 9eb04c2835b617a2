"""BLEU against golden values, a slow version and its edges."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import DataError
from laconic.metrics import Bleu


def slow_bleu(references: list[list[str]], candidates: list[str]) -> list[float]:
    correct, guess, words, length = [0] * 4, [0] * 4, 0, 0
    for group, candidate in zip(references, candidates, strict=True):
        tokens = candidate.split()
        words += len(tokens)
        length += min((abs(len(r.split()) - len(tokens)), len(r.split())) for r in group)[1]
        for n in range(4):
            grams = [Counter(zip(*(c.split()[k:] for k in range(n + 1)), strict=False)) for c in group]
            own = Counter(zip(*(tokens[k:] for k in range(n + 1)), strict=False))
            guess[n] += sum(own.values())
            correct[n] += sum(min(count, max(g[gram] for g in grams)) for gram, count in own.items())
    scores, product = [], 1.0
    for n in range(4):
        product *= (correct[n] + 1e-15) / (guess[n] + 1e-9)
        scores.append(product ** (1 / (n + 1)))
    ratio = (words + 1e-15) / (length + 1e-9)
    return [s * math.exp(min(0.0, 1 - 1 / ratio)) for s in scores]


WORDS = ["a", "man", "dog", "rides", "on", "the", "red"]
CAPTION = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


@settings(max_examples=60)
@given(st.data())
def test_equals_the_definition(data: st.DataObject) -> None:
    references = data.draw(st.lists(st.lists(CAPTION, min_size=1, max_size=4), min_size=1, max_size=5))
    size = len(references)
    candidates = data.draw(st.lists(CAPTION, min_size=size, max_size=size))
    np.testing.assert_allclose(Bleu(references).corpus(candidates), slow_bleu(references, candidates), rtol=1e-12)


def test_golden_sentences_and_corpus(golden: Path) -> None:
    data = json.loads((golden / "smp" / "c_ciderd_rewards.json").read_text())
    expected = np.array(data["results"]["sentence_bleu_1_to_4"])  # (order, image, sample)
    for sample in range(4):
        scores = Bleu(data["references"]).sentences([group[sample] for group in data["hypotheses"]])
        np.testing.assert_allclose(scores, expected[:, :, sample].T, rtol=1e-12)
    corpus = Bleu(data["references"]).corpus([group[0] for group in data["hypotheses"]])
    np.testing.assert_allclose(corpus, data["corpus_metrics_first_hyp"]["BLEU1-4"], rtol=1e-12)


def test_closest_reference_length_is_the_shorter_on_a_tie() -> None:
    # 3 words against 2 and 4: with the longer one there would be a brevity penalty
    assert Bleu([["a b", "a b c d"]]).corpus(["a b c"])[0] == pytest.approx(1.0)


def test_requests_that_cannot_be_right() -> None:
    with pytest.raises(DataError, match="one reference caption per image"):
        Bleu([["a"], []])
    with pytest.raises(DataError, match="1 candidates for 2 images"):
        Bleu([["a"], ["b"]]).corpus(["a"])
