"""BLEU-1 to BLEU-4 (Papineni et al. 2002) exactly as coco-caption computes them.

The reference length of a caption is the closest one (the shorter on a tie); n-gram counts are
clipped by the largest count in any one reference; tiny constants keep a corpus without matches
finite. It deliberately does not know tokenization: captions come as tokens separated by white
space, or as ids.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from laconic.errors import DataError
from laconic.metrics.ngrams import ORDERS, WORD_BITS, Caption, Counts, Ints, NgramTable, image_of_each

Floats = NDArray[np.float64]
SMALL = 1e-9  # added to divisors
TINY = 1e-15  # added to dividends: no match and nothing to match give 0 rather than nan


class Bleu:
    """BLEU against references that are prepared once; `references[i]` are those of image i.

    Counting with the `table` of another metric lets both score the same counts.
    """

    def __init__(self, references: Sequence[Sequence[Caption]], table: NgramTable | None = None) -> None:
        if not references or not all(references):
            raise DataError("BLEU needs at least one image and one reference caption per image")
        captions: list[Caption] = [caption for group in references for caption in group]
        per_image = np.array([len(group) for group in references], dtype=np.int64)
        image = np.repeat(np.arange(len(references)), per_image)
        self.table, counts = NgramTable.of(captions) if table is None else (table, table.count(captions))
        key = image[counts.caption] * (self.table.size + 1) + counts.gram
        ranking = np.argsort(key, kind="stable")
        self._keys, starts = np.unique(key[ranking], return_index=True)
        self._most = np.maximum.reduceat(counts.count[ranking], starts) if len(starts) else counts.count
        filled = np.arange(per_image.max()) < per_image[:, None]
        self._lengths = np.full(filled.shape, 1 << WORD_BITS)  # farther than any reference
        self._lengths[filled] = counts.words
        self._lengths.sort(axis=1)

    def corpus(self, candidates: Sequence[Caption]) -> tuple[float, ...]:
        """BLEU-1..4, 0 to 1, of a whole corpus; candidate i answers image i."""
        correct, guess, words, reference = self._statistics(self.table.count(candidates), None)
        sums = (correct.sum(axis=0), guess.sum(axis=0), words.sum(), reference.sum())
        return tuple(_bleu(*(np.asarray([part]) for part in sums))[0].tolist())

    def sentences(self, candidates: Sequence[Caption], images: Sequence[int] | Ints | None = None) -> Floats:
        """BLEU-1..4 of each caption by itself, (captions, 4); candidate i answers `images[i]`, by default i."""
        return self.sentences_of_counts(self.table.count(candidates), images)

    def sentences_of_counts(self, counts: Counts, images: Sequence[int] | Ints | None = None) -> Floats:
        """`sentences` of candidates that `table` has counted already."""
        return _bleu(*self._statistics(counts, images))

    def _statistics(self, counts: Counts, images: Sequence[int] | Ints | None) -> tuple[Ints, Ints, Ints, Ints]:
        """Clipped matches and n-grams (captions, 4), words and reference length (captions,)."""
        candidates = len(counts.words)
        image = image_of_each(candidates, images, len(self._lengths))
        key = image[counts.caption] * (self.table.size + 1) + counts.gram
        clipped = np.zeros(len(key))
        if len(self._keys):
            known = np.flatnonzero(counts.gram < self.table.size)
            place = np.minimum(np.searchsorted(self._keys, key[known]), len(self._keys) - 1)
            found = self._keys[place] == key[known]
            hit = known[found]
            clipped[hit] = np.minimum(counts.count[hit], self._most[place[found]])
        slot = counts.caption * ORDERS + counts.order
        correct = np.bincount(slot, weights=clipped, minlength=candidates * ORDERS)
        guess = np.maximum(counts.words[:, None] - np.arange(ORDERS), 0)
        lengths = self._lengths[image]
        closest = np.abs(lengths - counts.words[:, None]).argmin(axis=1)  # of equals the first, the shorter
        return (
            correct.astype(np.int64).reshape(-1, ORDERS),
            guess,
            counts.words,
            lengths[np.arange(candidates), closest],
        )


def _bleu(correct: Ints, guess: Ints, words: Ints, reference: Ints) -> Floats:
    precision = (correct + TINY) / (guess + SMALL)
    score = np.cumprod(precision, axis=1) ** (1.0 / np.arange(1, ORDERS + 1))
    ratio = (words + TINY) / (reference + SMALL)
    brevity: Floats = np.exp(np.minimum(1.0 - 1.0 / ratio, 0.0))
    result: Floats = score * brevity[:, None]
    return result
