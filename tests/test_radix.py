"""Words spelled by digits: against ACORT's own encoding, and against every word and every digit."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from laconic.errors import FormatError
from laconic.radix import ZERO, Radix
from laconic.text import BOS, EOS, SPECIALS, UNK, Vocabulary

GOLDEN = json.loads((Path(__file__).parent / "golden/acort/radix.json").read_bytes())
VOCABULARY = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(40))), base=16)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['vocabulary']}-{case['base']}")
def test_digits_are_those_of_acort(case) -> None:
    radix = Radix(case["vocabulary"] - len(SPECIALS), case["base"])
    # the published program counts the unknown word among the words, and the digits of their number, not of the last one
    more = case["digits_per_word"] - radix.digits
    assert more in (0, 1)
    for word, published in case["word_to_digits"].items():
        if int(word) >= len(SPECIALS):
            digits = [i - ZERO for i in radix.spell(int(word) - len(SPECIALS))]
            assert [0] * more + digits == [digit - 1 for digit in published]


@pytest.mark.parametrize(("words", "base"), [(1, 16), (16, 16), (17, 16), (40, 16), (100, 3), (27, 3), (28, 3)])
def test_every_word_and_no_other_can_be_spelled(words: int, base: int) -> None:
    """Going only where it is possible leads to every word once, and to nothing else."""
    radix = Radix(words, base)
    begun: list[tuple[int, ...]] = [()]
    ids = np.arange(ZERO + base)[None]
    for _ in range(radix.digits):
        grown = []
        for said in begun:
            wrong = radix.impossible(np.array([said], np.int64).reshape(1, len(said)), ids, UNK)[0]
            grown += [(*said, int(i)) for i in ids[0][~wrong] if i >= ZERO or i == UNK]
        begun = grown
    known = [said for said in begun if UNK not in said]
    assert [radix.word(said) for said in known] == list(range(words))
    assert [said for said in begun if UNK in said] == [(UNK,) * radix.digits]
    assert known == [radix.spell(word) for word in range(words)]
    assert radix.last == radix.spell(words - 1)


def test_what_spells_no_word_is_none() -> None:
    radix = Radix(40, 16)
    every = product(range(ZERO + 16), repeat=2)
    assert sorted(word for pair in every if (word := radix.word(pair)) is not None) == list(range(40))
    assert radix.word((ZERO,)) is None


def test_a_caption_goes_there_and_back() -> None:
    ids = VOCABULARY.encode("w3 w39 nobody w0", 10)
    assert len(ids) == 2 + 2 * 4
    assert ids[0] == BOS
    assert ids[-1] == EOS
    assert max(ids) < VOCABULARY.size == 20
    assert VOCABULARY.decode(ids) == "w3 w39 w0"
    assert VOCABULARY.read(ids) == VOCABULARY.numbers("w3 w39 nobody w0") == [7, 43, UNK, 4]
    assert VOCABULARY.encode("w3 w39 w0", 2) == [*VOCABULARY.encode("w3 w39", 9)]


def test_digits_that_spell_nothing_are_unknown_and_a_word_that_breaks_off_is_dropped() -> None:
    assert VOCABULARY.read([BOS, 19, 19, 4, 5, 4]) == [UNK, 5]
    with pytest.raises(IndexError, match="20 digits"):
        VOCABULARY.read([20])


def test_a_file_of_words_says_how_they_are_spelled(tmp_path: Path) -> None:
    VOCABULARY.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == VOCABULARY
    plain = Vocabulary(VOCABULARY.words)
    assert plain != VOCABULARY
    assert plain.radix is None
    assert plain.size == len(plain) == 44


@pytest.mark.parametrize("base", [-1, 15, 1 << 17, 16.0, True, "16"])
def test_a_base_that_cannot_be(base) -> None:
    with pytest.raises(FormatError, match="base"):
        Vocabulary(VOCABULARY.words, base=base)
    with pytest.raises(FormatError, match="no words to spell"):
        Vocabulary(SPECIALS, base=16)
