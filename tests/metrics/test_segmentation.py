"""Mean intersection over union: by hand, against its definition, and what counts for nothing."""

import numpy as np
import pytest

from laconic.metrics.segmentation import VOID, confusion, mean_iou, pixel_accuracy


def test_by_hand() -> None:
    labels = np.array([[0, 0, 1], [1, VOID, 1]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 0]])
    matrix = confusion(predicted, labels, 2)
    assert matrix.tolist() == [[1, 1], [1, 2]]
    assert mean_iou(matrix) == pytest.approx(100 * (1 / 3 + 2 / 4) / 2)
    assert pixel_accuracy(matrix) == 60


def test_a_class_that_is_nowhere_is_left_out_but_not_one_that_is_only_predicted() -> None:
    labels = np.zeros((2, 2), np.uint8)
    assert mean_iou(confusion(np.zeros((2, 2), int), labels, 3)) == 100
    assert mean_iou(confusion(np.array([[0, 0], [0, 2]]), labels, 3)) == pytest.approx(100 * 0.75 / 2)


def test_agrees_with_sets_of_pixels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (40, 30)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = VOID
    predicted = rng.integers(0, 5, (40, 30))
    known = labels != VOID
    shares = [
        ((predicted == k) & (labels == k)).sum() / (((predicted == k) & known) | (labels == k)).sum() for k in range(5)
    ]
    assert mean_iou(confusion(predicted, labels, 5)) == pytest.approx(100 * np.mean(shares))


def test_without_pixels_scores_are_zero() -> None:
    matrix = confusion(np.zeros((2, 2), int), np.full((2, 2), VOID, np.uint8), 2)
    assert (mean_iou(matrix), pixel_accuracy(matrix)) == (0, 0)
