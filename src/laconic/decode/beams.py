"""The books of a search: captions found, and captions in the making, those of several images at once.

Knows nothing of captioners or of how words are chosen, and needs numpy alone.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One caption: word ids without bos and eos, and what each emitted token (eos too) cost.

    `score` is sum(log_probs) / length ** length_penalty. `finished` tells whether eos was emitted
    before the length limit.
    """

    tokens: tuple[int, ...]
    score: float
    log_probs: tuple[float, ...]
    finished: bool


class Beams(NamedTuple):
    """Hypotheses of n images in m slots each. A slot with score -inf is empty.

    scores (n, m) float64; lengths (n, m); tokens and log_probs (n, m, max_length), valid up to the
    length.
    """

    scores: Floats
    lengths: Ints
    tokens: Ints
    log_probs: Floats

    @classmethod
    def empty(cls, n: int, m: int, max_length: int) -> "Beams":
        return cls(
            np.full((n, m), -np.inf),
            np.zeros((n, m), np.int64),
            np.zeros((n, m, max_length), np.int64),
            np.zeros((n, m, max_length), np.float32),
        )

    def at(self, index: Any) -> "Beams":
        """The images, or with a pair of index arrays the slots, that `index` picks."""
        return Beams(*(column[index] for column in self))

    def where(self, keep: npt.NDArray[np.bool_], divisor: float = 1.0) -> "Beams":
        """These slots with scores divided by `divisor`, and those outside `keep` emptied."""
        return self._replace(scores=np.where(keep, self.scores / divisor, -np.inf))

    def extended(self, log_probs: Floats, ids: Ints, step: int) -> tuple["Beams", Ints]:
        """The m best one-word extensions of each image, best first, and the row each came from.

        log_probs and ids (rows, k) have one row per slot that is not empty, in order. Of equal
        extensions that of the earlier slot, then the earlier column, comes first.
        """
        (n, m), k = self.scores.shape, ids.shape[1]
        alive = self.scores > -np.inf
        by_slot = np.full((n, m, k), -np.inf)
        by_slot[alive] = self.scores[alive][:, None] + log_probs
        scores = by_slot.reshape(n, m * k)
        images = np.arange(n)[:, None]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :m]
        slots, columns = np.divmod(best, k)
        # An image with fewer extensions than slots points at empty ones: any row will do there.
        row_of_slot = np.maximum(np.cumsum(alive).reshape(n, m) - 1, 0)
        rows = row_of_slot[images, slots]
        grown = self.at((images, slots))._replace(scores=scores[images, best])
        grown.lengths[:] = step + 1
        grown.tokens[:, :, step] = ids[rows, columns]
        grown.log_probs[:, :, step] = log_probs[rows, columns]
        return grown, rows

    def merged(self, others: "Beams") -> "Beams":
        """The m best of these and of `others`, best first; of equals these come first."""
        n, m = self.scores.shape
        both = Beams(*(np.concatenate(pair, axis=1) for pair in zip(self, others, strict=True)))
        best = np.argsort(-both.scores, axis=1, kind="stable")[:, :m]
        return both.at((np.arange(n)[:, None], best))

    def hypotheses(self, eos: int) -> list[list[Hypothesis]]:
        """The slots that are not empty, image by image."""
        found: list[list[Hypothesis]] = []
        for slots in zip(*(column.tolist() for column in self), strict=True):
            found.append([])
            for score, length, tokens, log_probs in zip(*slots, strict=True):
                if score == -math.inf:
                    continue
                finished = tokens[length - 1] == eos
                words = tuple(tokens[: length - finished])
                found[-1].append(Hypothesis(words, score, tuple(log_probs[:length]), finished))
        return found
