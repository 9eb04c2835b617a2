"""Mean intersection over union of classes of pixels."""

import numpy as np

VOID = 255  # label of pixels that no class is known of, which count for nothing


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes): pixels by label (row) and by what is predicted of them (column).

    Args:
        predicted: integers of any shape, 0 to classes - 1.
        labels: of the same shape, VOID where a pixel does not count.
    """
    counted = labels != VOID
    cells = labels[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def mean_iou(matrix: np.ndarray) -> float:
    """Percentage: over classes, pixels that are rightly of it by pixels that are of it or said to be; then the mean.

    A class that is neither there nor predicted is left out, as in PASCAL VOC and ADE20K. Without any pixel it is 0.
    """
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    seen = union > 0
    return 100 * float((right[seen] / union[seen]).mean()) if seen.any() else 0.0


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Percentage of pixels whose class is predicted; 0 without any."""
    return 100 * float(np.trace(matrix)) / max(1, int(matrix.sum()))
