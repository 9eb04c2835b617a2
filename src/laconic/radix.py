"""Words spelled by digits (radix encoding): COMIC, Tan et al. 2019, arXiv 1903.01072; ACORT, 2022, arXiv 2202.05451.

    radix = Radix(words=2519, base=64)
    radix.spell(0), radix.spell(2518)      # (4, 4), (43, 26)
    radix.word((43, 26))                   # 2518

A captioner that spells has a table of some dozen digits in the place of one of thousands of words, and says several
digits for each word. Every word has as many digits as the last one, most significant first. The ids below ZERO are not
digits: padding, the unknown word, beginning and end. The unknown word is said once for each digit, so that every word
is as long. Knows numbers only; `laconic.text` knows the words, `laconic.decode` searches among the digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

ZERO = 4  # the id of digit 0
LEAST_BASE, MOST_BASE = 16, 1 << 16

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Radix:
    """How words, numbered from 0, are spelled.

    Attributes:
        words: how many there are; at least 1.
        base: how many different digits.
    """

    words: int
    base: int

    @cached_property
    def last(self) -> tuple[int, ...]:
        """Ids of the digits of the last word."""
        digits, number = list[int](), self.words - 1
        while number or not digits:
            number, digit = divmod(number, self.base)
            digits.append(ZERO + digit)
        return tuple(digits[::-1])

    @property
    def digits(self) -> int:
        """Of each word."""
        return len(self.last)

    def spell(self, word: int) -> tuple[int, ...]:
        """Ids of the digits of a word."""
        return tuple(ZERO + word // self.base**place % self.base for place in reversed(range(self.digits)))

    def word(self, ids: Sequence[int]) -> int | None:
        """The word that is spelled so; None where there is none."""
        digits = [i - ZERO for i in ids]
        if len(digits) != self.digits or not all(0 <= digit < self.base for digit in digits):
            return None
        number = sum(digit * self.base**place for place, digit in enumerate(reversed(digits)))
        return number if number < self.words else None

    def impossible(self, said: Ints, ids: Ints, unk: int) -> npt.NDArray[np.bool_]:
        """Which of `ids` (rows, k) go on to no word after `said` (rows, place), the ids of the word begun.

        At place 0 a caption may end; the ids that are not digits are possible there, and for the rest of a word that
        began with the unknown word `unk`, that one alone is.
        """
        place = said.shape[1]
        most = np.where((said == self.last[:place]).all(1), self.last[place], ZERO + self.base - 1)
        wrong: npt.NDArray[np.bool_] = ids > most[:, None]
        if not place:
            return wrong
        return np.where((said[:, :1] == unk), ids != unk, wrong | (ids < ZERO))
