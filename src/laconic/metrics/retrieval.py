"""Recall of retrieval between images and texts: is one that belongs among the first k?

TR@k ranks all texts for each image, IR@k all images for each text, as in the tables of CLIP and BLIP. An image may have
several texts; the best of them counts. What scores the same as the right one counts as before it, so a model that
tells nothing apart gets nothing.
"""

from collections.abc import Mapping, Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from laconic.errors import DataError

KS = (1, 5, 10)


def recall_at(
    similarity: NDArray[np.floating],
    image_of_text: NDArray[np.integer],
    ks: Sequence[int] = KS,
    *,
    of_images: NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """Shares 0 to 1 as {"TR@1": ..., "IR@1": ...} for each k, and their mean, "mean recall".

    Args:
        similarity: (images, texts), the larger the closer.
        image_of_text: (texts,), the row of the image that each text belongs to.
        of_images: (images, texts), what images are ranked by for each text where that is not `similarity`.

    Raises:
        DataError: shapes that do not fit, numbers that are not finite, or an image without a text.
    """
    backward = similarity if of_images is None else of_images
    _check(similarity, backward, image_of_text)
    right = image_of_text == np.arange(len(similarity))[:, None]
    text_rank = _wrong_before(similarity, right)
    image_rank = _wrong_before(backward.T, right.T)
    recalls = {f"TR@{k}": float((text_rank < k).mean()) for k in ks}
    recalls |= {f"IR@{k}": float((image_rank < k).mean()) for k in ks}
    return {**recalls, "mean recall": sum(recalls.values()) / len(recalls)}


def chance_recall(images: int, image_of_text: NDArray[np.integer], ks: Sequence[int] = KS) -> Mapping[str, float]:
    """What `recall_at` gives on average for ranks that are drawn at random."""
    texts = len(image_of_text)
    having = np.bincount(image_of_text, minlength=images)
    missed = {k: np.mean([comb(texts - int(own), k) / comb(texts, k) for own in having]) for k in ks if k <= texts}
    recalls = {f"TR@{k}": float(1 - missed[k]) if k in missed else 1.0 for k in ks}
    recalls |= {f"IR@{k}": min(1.0, k / images) for k in ks}
    return {**recalls, "mean recall": sum(recalls.values()) / len(recalls)}


def _wrong_before(similarity: NDArray[np.floating], right: NDArray[np.bool_]) -> NDArray[np.integer]:
    """(queries,): how many wrong ones stand before the best right one, or score the same."""
    best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
    before: NDArray[np.integer] = ((similarity >= best) & ~right).sum(1)
    return before


def _check(forward: NDArray[np.floating], backward: NDArray[np.floating], image_of_text: NDArray[np.integer]) -> None:
    if forward.ndim != 2 or backward.shape != forward.shape or image_of_text.shape != forward.shape[1:]:
        raise DataError(
            f"recall: similarity {forward.shape}, of images {backward.shape}, texts {image_of_text.shape}; give "
            "(images, texts) twice and (texts,)"
        )
    if not (np.isfinite(forward).all() and np.isfinite(backward).all()):
        raise DataError("recall: a similarity is not finite; the model's weights are not, or its training has diverged")
    if set(np.unique(image_of_text)) != set(range(len(forward))):
        raise DataError("recall: each image needs a text, and each text one of the images; leave the others out")
