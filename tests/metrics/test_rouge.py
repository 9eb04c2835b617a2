"""ROUGE-L against golden values and the textbook recurrence."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import DataError
from laconic.metrics import rouge_l


def slow_rouge(candidate: str, references: list[str]) -> float:
    def common(a: list[str], b: list[str]) -> int:
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                same = table[i][j] + 1
                table[i + 1][j + 1] = same if x == y else max(table[i][j + 1], table[i + 1][j])
        return table[-1][-1]

    words = candidate.split(" ")
    precision = max(common(words, r.split(" ")) / len(words) for r in references)
    recall = max(common(words, r.split(" ")) / len(r.split(" ")) for r in references)
    if not precision or not recall:
        return 0.0
    return 2.44 * precision * recall / (recall + 1.44 * precision)


CAPTION = st.lists(st.sampled_from("abcde"), max_size=80).map(" ".join)


@given(CAPTION, st.lists(CAPTION, min_size=1, max_size=4))
def test_equals_the_recurrence(candidate: str, references: list[str]) -> None:
    assert rouge_l([references], [candidate])[0] == pytest.approx(slow_rouge(candidate, references))


def test_golden_corpus(golden: Path) -> None:
    data = json.loads((golden / "smp" / "c_ciderd_rewards.json").read_text())
    scores = rouge_l(data["references"], [group[0] for group in data["hypotheses"]])
    corpus = data["corpus_metrics_first_hyp"]
    assert scores.mean() == pytest.approx(corpus["ROUGE_L"], abs=1e-12)
    np.testing.assert_allclose(np.sort(scores), np.sort(corpus["ROUGE_L_per_image"]), atol=1e-12)


def test_every_image_needs_a_reference() -> None:
    with pytest.raises(DataError, match="at least one reference"):
        rouge_l([[]], ["a"])
