"""What greedy search may say, as tables: the rules of laconic.decode for a graph that can only look things up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laconic.decode.search import Decoding, SpecialIds
from laconic.radix import ZERO
from laconic.spec.tokens import special_ids
from laconic.text import Vocabulary


@dataclass(frozen=True, eq=False)
class Rules:
    """Greedy search over one vocabulary.

    Attributes:
        special: the ids that are not words, and how words are spelled, if they are.
        max_length: words of a caption at most.
        allowed: added to log-probabilities, 0 for what may be said and -inf for what may not: (2, digits, vocabulary),
            a row for each digit of a word. The second table is for words whose digits so far are those of the last
            word, which go on no further than it does; where words are not spelled, both are the same.
    """

    special: SpecialIds
    max_length: int
    allowed: NDArray[np.float32]

    @property
    def tokens(self) -> int:
        """Of a caption at most."""
        return self.special.tokens_at_most(self.max_length)

    @property
    def last(self) -> tuple[int, ...]:
        """Ids of the digits of the last word; none where words are not spelled."""
        return self.special.radix.last if self.special.radix else ()


def rules_of(vocabulary: Vocabulary, max_length: int) -> Rules:
    """Those of `laconic.decode.search.greedy`. ConfigError for a length that no search has."""
    special, decoding = special_ids(vocabulary), Decoding(beam=1, max_length=max_length)
    special.tokens_at_most(max_length)
    ids = np.arange(vocabulary.size)
    allowed = np.zeros((2, special.radix.digits if special.radix else 1, len(ids)), np.float32)
    if special.radix:
        for place in range(special.radix.digits):
            for at_last, said in enumerate(((ZERO,) * place, special.radix.last[:place])):  # the last begins with no 0
                wrong = special.radix.impossible(np.array([said], np.int64), ids[None], special.unk)
                allowed[at_last, place, wrong[0]] = -np.inf
    allowed[..., list(special.forbidden(decoding.allow_unknown))] = -np.inf
    return Rules(special, max_length, allowed)
