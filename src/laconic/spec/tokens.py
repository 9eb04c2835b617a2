"""The ids that are not words, as every captioner of laconic has them.

The vocabulary (laconic.text) begins with these four, and a search (laconic.decode), which knows no vocabulary, is told
which ids they are.
"""

from dataclasses import replace

from laconic.decode.search import SpecialIds
from laconic.text import BOS, EOS, PAD, UNK, Vocabulary

__all__ = ["BOS", "EOS", "PAD", "SPECIAL", "UNK", "special_ids"]

SPECIAL = SpecialIds(pad=PAD, unk=UNK, bos=BOS, eos=EOS)


def special_ids(vocabulary: Vocabulary) -> SpecialIds:
    """Those four, and how the vocabulary spells words."""
    return replace(SPECIAL, radix=vocabulary.radix)
