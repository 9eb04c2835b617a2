"""Accuracy among the first choices."""

import numpy as np
import pytest

from laconic.metrics.classification import top_k

SCORES = np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]])


def test_first_and_second_choice() -> None:
    labels = np.array([1, 2, 0])
    assert top_k(SCORES, labels) == pytest.approx(100 / 3)
    assert top_k(SCORES, labels, 2) == pytest.approx(200 / 3)
    assert top_k(SCORES, labels, 3) == 100


def test_equal_scores_do_not_all_count_as_the_first_choice() -> None:
    assert top_k(np.zeros((3, 3)), np.array([0, 1, 2])) == pytest.approx(100 / 3)
