"""The ids that are not words, as every captioner of laconic has them.

The vocabulary (laconic.text) begins with these four, and a search (laconic.decode), which knows no vocabulary, is told
which ids they are.
"""

from laconic.decode.search import SpecialIds
from laconic.text import BOS, EOS, PAD, UNK

__all__ = ["BOS", "EOS", "PAD", "SPECIAL", "UNK"]

SPECIAL = SpecialIds(pad=PAD, unk=UNK, bos=BOS, eos=EOS)
