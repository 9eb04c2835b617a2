"""Accuracy of decisions between classes."""

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Percentage of rows whose label is among the k highest scores; of equal scores the first class counts as higher.

    Args:
        scores: (n, classes).
        labels: (n,) of the right classes.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return 100 * float((best == labels[:, None]).any(1).mean())
