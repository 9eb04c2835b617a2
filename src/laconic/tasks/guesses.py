"""What segmentation scores without looking at an image: the scores that a model has to be better than."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from laconic.data.segmentation import Labels, Segmented
from laconic.metrics.segmentation import VOID, confusion, mean_iou

CELLS = 64  # places along a side of an image


@dataclass(frozen=True)
class Guesses:
    """Classes of training masks by place: int64 (CELLS, CELLS, classes)."""

    counts: np.ndarray

    def scores(self, masks: Sequence[Labels]) -> dict[str, float]:
        """Mean IoU over these masks of random guesses, of one class everywhere, and of one class for each place.

        The latter two are the most frequent ones in training. Random guesses, each of K classes alike, are right on
        1/K of a class of n of all N pixels, which makes an IoU of (n / K) / (n + N / K - n / K).
        """
        classes = self.counts.shape[2]
        one = np.full((CELLS, CELLS), self.counts.sum((0, 1)).argmax())
        sizes = sum(np.bincount(mask[mask != VOID], minlength=classes) for mask in masks)
        right = np.asarray(sizes) / classes
        chance = right / np.maximum(np.asarray(sizes) + np.sum(sizes) / classes - right, 1e-9)
        return {
            "chance": 100 * float(chance.mean()),
            "one class": self._score(one, masks),
            "no image": self._score(self.counts.argmax(2), masks),
        }

    def _score(self, guess: np.ndarray, masks: Sequence[Labels]) -> float:
        classes = self.counts.shape[2]
        matrix = np.zeros((classes, classes), np.int64)
        for mask in masks:
            rows, columns = (np.arange(length) * CELLS // length for length in mask.shape)
            matrix += confusion(guess[rows[:, None], columns], mask, classes)
        return mean_iou(matrix)


def count_classes(split: Segmented, progress: Callable[[int, int], None]) -> Guesses:
    """Reads every mask once. DataError for the first that cannot be used."""
    counts = np.zeros((CELLS, CELLS, len(split.layout.classes)), np.int64)
    down, across = np.indices((CELLS, CELLS))
    for row in range(len(split.masks)):
        labels = split.labels(row)
        rows, columns = (((np.arange(CELLS) + 0.5) * length / CELLS).astype(np.int64) for length in labels.shape)
        seen = labels[rows[:, None], columns]
        known = seen != VOID
        counts[down[known], across[known], seen[known]] += 1
        progress(row + 1, len(split.masks))
    return Guesses(counts)
