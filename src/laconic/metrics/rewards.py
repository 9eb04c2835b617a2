"""Rewards of sampled captions: CIDEr-D plus sentence BLEU-4, weighted, and what they are compared with.

References are prepared once, their n-grams and those of a caption counted once for both scores. Captions are the ids a
captioner emits or words between white space; whether the end of a sentence is one of them is up to the caller.
Knows nothing of models or sampling.
"""

from collections.abc import Sequence

import numpy as np

from laconic.metrics.bleu import Bleu
from laconic.metrics.cider import CiderD, DocumentFrequency, Floats
from laconic.metrics.ngrams import Caption, Ints


class Rewards:
    """cider * CIDEr-D (0 to 10) + bleu * BLEU-4 (0 to 1) of captions against `references[image]`.

    Document frequencies come from the references, unless `document_frequency` is given.

    Raises:
        DataError: where an image has no reference.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Caption]],
        *,
        cider: float = 1.0,
        bleu: float = 1.0,
        document_frequency: DocumentFrequency | None = None,
    ) -> None:
        self._weights = cider, bleu
        self._cider = CiderD(references, document_frequency)
        self._bleu = Bleu(references, self._cider.table) if bleu else None

    def __call__(self, candidates: Sequence[Caption], images: Sequence[int] | Ints) -> Floats:
        """Reward of each candidate, which answers image `images[i]`; an image may come any number of times."""
        cider, bleu = self._weights
        counts = self._cider.table.count(candidates)
        rewards = cider * self._cider.score_counts(counts, images)
        if self._bleu is not None:
            rewards += bleu * self._bleu.sentences_of_counts(counts, images)[:, -1]
        return rewards


def mean_of_others(rewards: Floats, images: Ints) -> Floats:
    """For each sample the mean reward of the other samples of its image; 0 where there is no other."""
    total = np.bincount(images, weights=rewards)[images]
    others = np.bincount(images)[images] - 1
    baseline: Floats = (total - rewards) / np.maximum(others, 1)
    return np.where(others > 0, baseline, 0.0)
