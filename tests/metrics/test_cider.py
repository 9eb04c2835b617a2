"""CIDEr-D against golden rewards, against a slow and literal version, and its edges."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import ConfigError, DataError
from laconic.metrics import CiderD, DocumentFrequency


def ngrams(caption: str) -> Counter[tuple[str, ...]]:
    words = caption.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def slow_cider(references: list[list[str]], candidates: list[str], clipped: bool) -> list[float]:
    """The definition, one dictionary at a time."""
    frequency = Counter(g for group in references for g in {g for r in group for g in ngrams(r)})
    documents = math.log(len(references))

    def vector(caption: str, order: int) -> dict[tuple[str, ...], float]:
        return {
            g: count * (documents - math.log(max(1, frequency[g])))
            for g, count in ngrams(caption).items()
            if len(g) == order
        }

    def similarity(candidate: str, reference: str) -> float:
        total = 0.0
        gap = max(len(candidate.split()) - 1, 0) - max(len(reference.split()) - 1, 0)
        for order in range(1, 5):
            a, b = vector(candidate, order), vector(reference, order)
            norm = math.hypot(*a.values()) * math.hypot(*b.values())
            if norm:
                pairs = [(a[g], b[g]) for g in a if g in b]
                total += sum((min(x, y) if clipped else x) * y for x, y in pairs) / norm
        return total / 4 * (math.exp(-(gap**2) / 72) if clipped else 1.0)

    return [
        10 * sum(similarity(candidate, r) for r in group) / len(group)
        for candidate, group in zip(candidates, references, strict=True)
    ]


WORDS = ["a", "man", "dog", "rides", "on", "the", "red", "<oov>"]
CAPTION = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


@settings(max_examples=60)
@given(st.data())
def test_equals_the_definition(data: st.DataObject) -> None:
    references = data.draw(st.lists(st.lists(CAPTION, min_size=1, max_size=4), min_size=1, max_size=5))
    candidates = data.draw(
        st.lists(
            CAPTION.map(lambda c: c.replace("dog", "zebra")),
            min_size=len(references),
            max_size=len(references),
        )
    )
    cider = CiderD(references)
    np.testing.assert_allclose(cider.score(candidates), slow_cider(references, candidates, True), atol=1e-12)
    np.testing.assert_allclose(cider.plain_score(candidates), slow_cider(references, candidates, False), atol=1e-12)


@pytest.mark.parametrize("documents", [113287, 5])
def test_golden_rewards_with_given_document_frequency(golden: Path, documents: int) -> None:
    data = json.loads((golden / "smp" / "c_ciderd_rewards.json").read_text())
    expected = np.array(data["results"][f"ciderD_reflen_{documents}"])
    frequency = DocumentFrequency(data["document_frequency"], documents)
    cider = CiderD(data["references"], frequency)
    sampled = [caption for group in data["hypotheses"] for caption in group]
    images = [i for i, group in enumerate(data["hypotheses"]) for _ in group]
    np.testing.assert_allclose(cider.score(sampled, images).reshape(expected.shape), expected, atol=1e-12)


def test_golden_corpus(golden: Path) -> None:
    data = json.loads((golden / "smp" / "c_ciderd_rewards.json").read_text())
    scores = CiderD(data["references"]).score([group[0] for group in data["hypotheses"]])
    corpus = data["corpus_metrics_first_hyp"]
    assert scores.mean() == pytest.approx(corpus["CIDEr"], abs=1e-12)
    np.testing.assert_allclose(np.sort(scores), np.sort(corpus["CIDEr_per_image"]), atol=1e-12)


def test_scores_of_a_batch_do_not_depend_on_the_batch() -> None:
    references = [["a man on a horse", "a rider"], ["two dogs run"], ["the red car"]]
    cider = CiderD(references)
    candidates, images = ["a man", "zebra zebra", "two dogs", "a man on a horse"], [0, 0, 1, 0]
    together = cider.score(candidates, images)
    alone = [cider.score([c], [i])[0] for c, i in zip(candidates, images, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-15)
    assert cider.score([], []).shape == (0,)


def test_captions_without_words_score_zero() -> None:
    assert CiderD([[""], ["a dog"]]).score(["", ""]).tolist() == [0.0, 0.0]
    assert CiderD([["", ""]]).score(["a dog"]).tolist() == [0.0]


def test_requests_that_cannot_be_right() -> None:
    with pytest.raises(DataError, match="none for image 1"):
        CiderD([["a"], []])
    with pytest.raises(DataError, match="no images"):
        CiderD([])
    with pytest.raises(DataError, match="1 candidates for 2 images"):
        CiderD([["a"], ["b"]]).score(["a"])
    with pytest.raises(DataError, match=r"0\.\.1"):
        CiderD([["a"], ["b"]]).score(["a"], [2])
    with pytest.raises(ConfigError, match="7 of 5 documents"):
        DocumentFrequency({"a": 7}, 5)
