"""N-grams as integers: what BLEU and CIDEr count, held in sorted arrays instead of dictionaries.

An n-gram's key is (id of its first n-1 words as an n-gram, id of its last word) in one int64, so
ids are exact: nothing is hashed and nothing collides. A caption is words between white space, or the
ids a captioner emits. It deliberately does not know images, weights or scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from laconic.errors import DataError

Ints = NDArray[np.int64]
Caption = str | Sequence[int]
ORDERS = 4
_Found = tuple[Ints, Ints, int]  # caption and n-gram id of each place, and the order
WORD_BITS = 32  # a key is prefix << 32 | word; both stay below 2**31


@dataclass(frozen=True)
class Counts:
    """How often each n-gram stands in each caption, sorted by caption, then n-gram.

    `caption`, `gram`, `count` and `order` (0 for single words) have one entry per distinct pair;
    `words` (captions,) is each caption's number of words.
    """

    caption: Ints
    gram: Ints
    count: Ints
    order: Ints
    words: Ints

    def first(self, captions: int) -> "Counts":
        """The part that belongs to the first captions."""
        end = int(np.searchsorted(self.caption, captions))
        return Counts(
            self.caption[:end],
            self.gram[:end],
            self.count[:end],
            self.order[:end],
            self.words[:captions],
        )


@dataclass(frozen=True)
class NgramTable:
    """Every n-gram of order 1 to 4 in a set of captions, numbered from 0, order after order.

    `vocabulary` numbers the words; `keys[n]` are the sorted keys of order n + 1; `starts` (5,) is
    the first id of each order, and last the number of n-grams.
    """

    vocabulary: dict[str | int, int]
    keys: tuple[Ints, ...]
    starts: Ints

    @classmethod
    def of(cls, captions: Sequence[Caption]) -> tuple[Self, Counts]:
        """The table of all n-grams of `captions`, and their counts."""
        split = [_words(caption) for caption in captions]
        vocabulary: dict[str | int, int] = {}
        words = [vocabulary.setdefault(word, len(vocabulary)) for line in split for word in line]
        stream = np.array(words, dtype=np.int64)
        lengths = np.array([len(line) for line in split], dtype=np.int64)
        room = _room(lengths)
        caption = np.repeat(np.arange(len(split)), lengths)
        grams = np.zeros(len(stream), dtype=np.int64)
        keys: list[Ints] = []
        found: list[_Found] = []
        start = 0
        for order in range(ORDERS):
            at = np.flatnonzero(room > order)
            key = grams[at] << WORD_BITS | stream[at + order]
            unique, grams[at] = np.unique(key, return_inverse=True)
            found.append((caption[at], grams[at] + start, order))
            keys.append(unique)
            start += len(unique)
        starts = np.cumsum([0, *map(len, keys)], dtype=np.int64)
        return cls(vocabulary, tuple(keys), starts), _tally(found, lengths)

    @property
    def size(self) -> int:
        """Number of n-grams."""
        return int(self.starts[-1])

    def count(self, captions: Sequence[Caption]) -> Counts:
        """Count n-grams; new ones get ids from `size` on, valid in this call only."""
        split = [_words(caption) for caption in captions]
        lengths = np.array([len(line) for line in split], dtype=np.int64)
        stream = self._word_ids([word for line in split for word in line])
        room = _room(lengths)
        caption = np.repeat(np.arange(len(split)), lengths)
        grams = np.zeros(len(stream), dtype=np.int64)
        found: list[_Found] = []
        unknown = self.size
        for order in range(ORDERS):
            at = np.flatnonzero(room > order)
            key = grams[at] << WORD_BITS | stream[at + order]
            local, fresh = _find(self.keys[order], key)
            grams[at] = local
            ids = local + self.starts[order]
            outside = local >= len(self.keys[order])
            ids[outside] += unknown - self.starts[order + 1]
            unknown += fresh
            found.append((caption[at], ids, order))
        return _tally(found, lengths)

    def ids(self, grams: Sequence[str]) -> Ints:
        """Id of each n-gram (its words separated by one space), -1 where the table has none."""
        split = [gram.split() for gram in grams]
        lengths = np.array([len(words) for words in split], dtype=np.int64)
        stream = self._word_ids([word for words in split for word in words])
        first = np.cumsum(lengths) - lengths
        current = np.zeros(len(split), dtype=np.int64)
        result = np.full(len(split), -1, dtype=np.int64)
        alive = (lengths >= 1) & (lengths <= ORDERS)
        for order in range(ORDERS):
            at = np.flatnonzero(alive & (lengths > order))
            local, _ = _find(self.keys[order], current[at] << WORD_BITS | stream[first[at] + order])
            current[at] = local
            known = local < len(self.keys[order])
            alive[at[~known]] = False
            done = known & (lengths[at] == order + 1)
            result[at[done]] = local[done] + self.starts[order]
        return result

    def _word_ids(self, words: Sequence[str | int]) -> Ints:
        """Ids of words; unknown ones are numbered after the vocabulary, equal words alike."""
        ids = [self.vocabulary.get(word, -1) for word in words]
        if -1 in ids:
            new: dict[str | int, int] = {}
            size = len(self.vocabulary)
            for i, word in enumerate(words):
                if ids[i] < 0:
                    ids[i] = size + new.setdefault(word, len(new))
        return np.array(ids, dtype=np.int64)


def image_of_each(candidates: int, images: Sequence[int] | Ints | None, total: int) -> Ints:
    """The image (0..total - 1) that each candidate answers: `images`, by default one after another.

    Raises DataError where they do not fit.
    """
    image = np.arange(total) if images is None else np.asarray(images, dtype=np.int64)
    if len(image) != candidates:
        raise DataError(f"{candidates} candidates for {len(image)} images; give one image index each")
    if len(image) and (image.min() < 0 or image.max() >= total):
        raise DataError(f"image indices must lie in 0..{total - 1}")
    return image


def _words(caption: Caption) -> Sequence[str | int]:
    return caption.split() if isinstance(caption, str) else caption


def _room(lengths: Ints) -> Ints:
    """For each word of the joined captions: words left in its caption, itself included."""
    ends = np.repeat(np.cumsum(lengths), lengths)
    return ends - np.arange(len(ends))


def _find(keys: Ints, wanted: Ints) -> tuple[Ints, int]:
    """Position of each wanted key; missing ones numbered from len(keys), and how many those are."""
    unique, inverse = np.unique(wanted, return_inverse=True)
    place = np.searchsorted(keys, unique)  # sorted needles walk the table once, in cache order
    missing = keys.take(place, mode="clip") != unique if len(keys) else np.ones(len(unique), bool)
    fresh = int(missing.sum())
    place[missing] = len(keys) + np.arange(fresh)
    return place[inverse], fresh


def _tally(found: list[_Found], words: Ints) -> Counts:
    """Merge equal (caption, n-gram) pairs."""
    caption = np.concatenate([captions for captions, _, _ in found])
    gram = np.concatenate([grams for _, grams, _ in found])
    order = np.concatenate([np.full(len(grams), order) for _, grams, order in found])
    width = int(gram.max(initial=0)) + 1
    pair = caption * width + gram
    ranking = np.argsort(pair, kind="stable")
    pair = pair[ranking]
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    count = np.diff(first, append=len(pair))
    return Counts(pair[first] // width, pair[first] % width, count, order[ranking][first], words)
