"""BLEU-1 to BLEU-4 (Papineni et al. 2002) exactly as coco-caption computes them.

The reference length of a caption is the closest one (the shorter on a tie); n-gram counts are
clipped by the largest count in any one reference; tiny constants keep a corpus without matches
finite. It deliberately does not know tokenization: captions come as tokens separated by white
space.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from laconic.errors import DataError
from laconic.metrics.ngrams import ORDERS, Ints, NgramTable

Floats = NDArray[np.float64]
SMALL = 1e-9  # added to divisors
TINY = 1e-15  # added to dividends: no match and nothing to match give 0 rather than nan


class Bleu:
    """BLEU against references that are prepared once; `references[i]` are those of image i."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if not references or not all(references):
            raise DataError("BLEU needs at least one image and one reference caption per image")
        captions = [caption for group in references for caption in group]
        per_image = np.array([len(group) for group in references], dtype=np.int64)
        image = np.repeat(np.arange(len(references)), per_image)
        self._table, counts = NgramTable.of(captions)
        key = image[counts.caption] * (self._table.size + 1) + counts.gram
        ranking = np.argsort(key, kind="stable")
        self._keys, starts = np.unique(key[ranking], return_index=True)
        self._most = np.maximum.reduceat(counts.count[ranking], starts) if len(starts) else counts.count
        self._lengths = np.split(counts.words, np.cumsum(per_image)[:-1])

    def corpus(self, candidates: Sequence[str]) -> tuple[float, ...]:
        """BLEU-1..4, 0 to 1, of a whole corpus; candidate i answers image i."""
        correct, guess, words, reference = self._statistics(candidates)
        sums = (correct.sum(axis=0), guess.sum(axis=0), words.sum(), reference.sum())
        return tuple(_bleu(*(np.asarray([part]) for part in sums))[0].tolist())

    def sentences(self, candidates: Sequence[str]) -> Floats:
        """BLEU-1..4 of each caption by itself, (captions, 4)."""
        return _bleu(*self._statistics(candidates))

    def _statistics(self, candidates: Sequence[str]) -> tuple[Ints, Ints, Ints, Ints]:
        """Clipped matches and n-grams (captions, 4), words and reference length (captions,)."""
        if len(candidates) != len(self._lengths):
            raise DataError(f"{len(candidates)} candidates for {len(self._lengths)} images; give one each")
        counts = self._table.count(candidates)
        key = counts.caption * (self._table.size + 1) + counts.gram
        clipped = np.zeros(len(key))
        if len(self._keys):
            known = np.flatnonzero(counts.gram < self._table.size)
            place = np.minimum(np.searchsorted(self._keys, key[known]), len(self._keys) - 1)
            found = self._keys[place] == key[known]
            hit = known[found]
            clipped[hit] = np.minimum(counts.count[hit], self._most[place[found]])
        slot = counts.caption * ORDERS + counts.order
        correct = np.bincount(slot, weights=clipped, minlength=len(candidates) * ORDERS)
        guess = np.maximum(counts.words[:, None] - np.arange(ORDERS), 0)
        return (
            correct.astype(np.int64).reshape(-1, ORDERS),
            guess,
            counts.words,
            np.array(
                [
                    min((abs(int(length) - words), int(length)) for length in lengths)[1]
                    for words, lengths in zip(counts.words.tolist(), self._lengths, strict=True)
                ]
            ),
        )


def _bleu(correct: Ints, guess: Ints, words: Ints, reference: Ints) -> Floats:
    precision = (correct + TINY) / (guess + SMALL)
    score = np.cumprod(precision, axis=1) ** (1.0 / np.arange(1, ORDERS + 1))
    ratio = (words + TINY) / (reference + SMALL)
    brevity: Floats = np.exp(np.minimum(1.0 - 1.0 / ratio, 0.0))
    result: Floats = score * brevity[:, None]
    return result
