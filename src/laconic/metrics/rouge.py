"""ROUGE-L (Lin 2004) as coco-caption computes it, with beta 1.2.

The F-measure of the longest common subsequence. Precision and recall are each the best over the
references. It deliberately does not know tokenization: captions come as tokens separated by single
spaces (an empty caption is one empty token, as there).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from laconic.errors import DataError

BETA = 1.2


def rouge_l(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> NDArray[np.float64]:
    """ROUGE-L of each candidate, 0 to 1; `references[i]` (at least one) belong to candidate i."""
    if len(references) != len(candidates) or not all(references):
        raise DataError("ROUGE-L needs one candidate and at least one reference caption per image")
    return np.array([_score(c, r) for c, r in zip(candidates, references, strict=True)])


def _score(candidate: str, references: Sequence[str]) -> float:
    words = candidate.split(" ")
    places: dict[str, int] = {}
    for i, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << i
    precision = recall = 0.0
    for reference in references:
        tokens = reference.split(" ")
        common = _common_subsequence(places, len(words), tokens)
        precision = max(precision, common / len(words))
        recall = max(recall, common / len(tokens))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_subsequence(places: dict[str, int], length: int, tokens: Sequence[str]) -> int:
    """Length of the longest common subsequence, one integer as a row of bits (Hyyro 2004).

    `places[word]` has a bit for each position of `word` in the other caption, which has `length`
    words.
    """
    row = full = (1 << length) - 1
    for token in tokens:
        hits = row & places.get(token, 0)
        if hits:
            row = (row + hits | row - hits) & full
    return length - row.bit_count()
