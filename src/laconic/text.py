"""Captions as numbers: the word tokenizer, and the vocabulary that turns words into ids and back.

This is the text the model learns from. It is not the text that scores are computed on: metrics
bring the Penn Treebank tokenizer of coco-caption, and the two must not be mixed. Nothing here knows
images, models or decoding; a caption is a string, a batch is an array of ids.
"""

import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from laconic.errors import ConfigError, FormatError, LaconicWarning, printable
from laconic.machine.files import atomically
from laconic.radix import LEAST_BASE, MOST_BASE, Radix

PAD, UNK, BOS, EOS = range(4)
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
PIECE_START = "\u2581"  # how sentencepiece writes the space before a word
MAX_BYTES = 4 << 20  # of a vocabulary file: some 300,000 words, beyond any caption data set

_FORMAT, _VERSION = "laconic-vocabulary", 1

# A letter or digit may carry combining marks. Those are the only characters outside ASCII and \w
# that `_separate` leaves in the text, so this class needs no table of Unicode ranges.
_LETTERS = r"(?:[^\W_][^\x00-\x7f\w]*)+"
_WORD = rf"{_LETTERS}(?:['-]{_LETTERS})*"  # compiled when it is first used: captioning needs it not

# Scripts without spaces between words, and how many characters a word of theirs has at most on average.
_UNSPACED = (
    ("[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", 3),  # Japanese, Chinese
    ("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]", 8),  # Thai, Lao, Burmese, Khmer
)
_SAMPLE = 1000  # captions that tell whether a set has spaces between its words

# Typographic apostrophe and hyphen in their ASCII form; soft hyphen and emoji selectors vanish.
_SPELLINGS = {0x2019: "'", 0x2010: "-", 0x00AD: None, 0xFE0E: None, 0xFE0F: None}


def tokenize(caption: str) -> list[str]:
    """Words of a caption, in lower case and without punctuation.

    A word is a run of letters and digits of any script; hyphens and apostrophes inside it stay.

    >>> tokenize("A man's T-shirt -- 'blue', size 42.")
    ['a', "man's", 't-shirt', 'blue', 'size', '42']
    """
    text = caption.lower() if caption.isascii() else _separate(caption)
    return re.findall(_WORD, text)


def unspaced(captions: Iterable[str]) -> bool:
    """Whether most captions are in a script without spaces between words, so that `tokenize` finds no words in them.

    Their words, separated by spaces, are what to use instead, in vocabularies and scores.

    >>> unspaced(["一只狗在草地上奔跑"]), unspaced(["一只 狗 在 草地 上 奔跑"])
    (True, False)
    """
    flags = [not caption.isascii() and _runs_on(caption) for caption in islice(captions, _SAMPLE)]
    return 2 * sum(flags) > len(flags)


def _runs_on(caption: str) -> bool:
    words = tokenize(caption)
    for script, most in _UNSPACED:
        lengths = [len(found) for word in words if (found := re.findall(script, word))]
        if sum(lengths) > most * len(lengths):
            return True
    return False


def tokenize_pieces(caption: str) -> list[str]:
    """Words of a caption as a sentencepiece model of type "word" sees them: what spaces separate, case kept.

    >>> tokenize_pieces("A man's T-shirt.")
    ['A', "man's", 'T-shirt.']
    """
    return unicodedata.normalize("NFKC", caption).replace(PIECE_START, " ").split()


def _separate(caption: str) -> str:
    """Lower case, compatibility-composed, all but letters, digits, marks, ' and - made spaces."""
    # Composed before lowering (letter-like symbols have no lower case of their own), and again
    # after it (lowering may decompose), so that one word has one spelling.
    text = unicodedata.normalize("NFKC", caption).translate(_SPELLINGS).lower()
    return "".join(
        c if c.isalnum() or c in "'-" or unicodedata.category(c) in ("Mn", "Mc") else " "
        for c in unicodedata.normalize("NFKC", text)
    )


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"words": tokenize, "sentencepiece": tokenize_pieces}


@dataclass(frozen=True)
class Vocabulary:
    """The words a captioner can say: `words[id]` is the word of that id, the four specials first.

    `tokenization` is a key of TOKENIZERS. "sentencepiece" is for converted captioners only and keeps
    two more habits of that library: a run of unknown words is one unk, and `decode` shows unk.
    `base` is that of the digits that spell words, see laconic.radix; 0, each word is an id of its own.

    Raises FormatError where `words` does not begin with `SPECIALS`, holds anything but printable
    strings without spaces, or holds a word twice, and for an unknown tokenization or a base that cannot be.
    """

    words: tuple[str, ...]
    tokenization: str = "words"
    base: int = 0
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if tuple(self.words[: len(SPECIALS)]) != SPECIALS:
            raise FormatError(f"a vocabulary begins with {' '.join(SPECIALS)}")
        if self.tokenization not in TOKENIZERS:
            raise FormatError(f"tokenization {self.tokenization!r:.60} is unknown; there are {', '.join(TOKENIZERS)}")
        if self.base and not (type(self.base) is int and LEAST_BASE <= self.base <= MOST_BASE):
            raise FormatError(
                f"words spelled to the base {self.base!r:.20}; give 0, or from {LEAST_BASE} to {MOST_BASE:,}"
            )
        if self.base and len(self.words) == len(SPECIALS):
            raise FormatError("there are no words to spell; give a vocabulary of some words, or base 0")
        ids: dict[str, int] = {}
        for number, word in enumerate(self.words):
            # Words reach terminals and web pages: no control characters, no invisible ones.
            if not isinstance(word, str) or not word.isprintable() or word.split() != [word]:
                raise FormatError(f"word {number} of the vocabulary is {word!r:.60}, not a word")
            if ids.setdefault(word, number) != number:
                raise FormatError(f"the vocabulary holds {word!r:.60} twice: {ids[word]}, {number}")
        for special in SPECIALS:  # no text can spell one
            del ids[special]
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def build(
        cls,
        captions: Iterable[str],
        min_count: int = 5,
        max_length: int | None = None,
        max_size: int | None = None,
        base: int = 0,
    ) -> "Vocabulary":
        """Vocabulary of the words that occur at least `min_count` times, most frequent first.

        Counts what training will see: the first `max_length` words of each caption. `max_size`
        bounds the whole vocabulary, specials included. Equal counts are ordered by the word, so the
        result depends on the captions but not on their order. Raises ConfigError for arguments that
        cannot be right, and where no word is left; warns where whole sentences would be words.
        """
        for name, value, least in (
            ("min_count", min_count, 1),
            ("max_length", max_length, 1),
            ("max_size", max_size, len(SPECIALS) + 1),
        ):
            if value is not None and value < least:
                raise ConfigError(f"vocabulary: {name} is {value}, must be at least {least}")
        counts: Counter[str] = Counter()
        remaining = iter(captions)
        sample = list(islice(remaining, _SAMPLE))
        for caption in chain(sample, remaining):
            counts.update(tokenize(caption)[:max_length])
        kept = sorted((-n, word) for word, n in counts.items() if n >= min_count)
        if not kept:
            raise ConfigError(
                f"vocabulary: no word occurs {min_count} times in the captions "
                f"({len(counts)} different words seen); lower min_count or give more captions"
            )
        if unspaced(sample):
            warnings.warn(
                f"vocabulary: captions such as {printable(sample[0])[:60]!r} have no spaces between words, so each "
                "sentence becomes one word; give captions whose words are separated by spaces",
                LaconicWarning,
                stacklevel=2,
            )
        room = None if max_size is None else max_size - len(SPECIALS)
        return cls(SPECIALS + tuple(word for _, word in kept[:room]), base=base)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def radix(self) -> Radix | None:
        """How words are spelled; None where they are not."""
        return Radix(len(self.words) - len(SPECIALS), self.base) if self.base else None

    @property
    def size(self) -> int:
        """How many different ids a captioner reads and says: of words, or of digits."""
        return len(SPECIALS) + self.base if self.base else len(self.words)

    def numbers(self, caption: str) -> list[int]:
        """The number in `words` of each word of a caption, unk for unknown ones."""
        ids = [self._ids.get(word, UNK) for word in TOKENIZERS[self.tokenization](caption)]
        if self.tokenization == "sentencepiece":
            ids = [id_ for before, id_ in pairwise([BOS, *ids]) if not before == id_ == UNK]
        return ids

    def read(self, ids: Iterable[int]) -> list[int]:
        """The numbers in `words` of what `ids` say: themselves, unless they are digits. IndexError for a foreign id.

        Digits that spell no word are unk; those of a word that breaks off are dropped.
        """
        numbers = list(ids)
        for i in numbers:
            if not 0 <= i < self.size:  # a negative id would quietly count from the end
                raise IndexError(f"id {i} is not in a vocabulary of {self.size} {'digits' if self.base else 'words'}")
        if self.radix is None:
            return numbers
        said = [i for i in numbers if i not in (PAD, BOS, EOS)]
        spelled = [said[at : at + self.radix.digits] for at in range(0, len(said), self.radix.digits)]
        words = [self.radix.word(digits) for digits in spelled if len(digits) == self.radix.digits]
        return [UNK if word is None else len(SPECIALS) + word for word in words]

    def encode(self, caption: str, max_length: int) -> list[int]:
        """Ids of a caption: bos, at most `max_length` words (unk for unknown ones) or their digits, eos.

        A caption that is cut ends in eos all the same. Without it (the published code appends eos,
        then cuts) the model sees long captions that never end, and at decoding it runs into the
        length limit instead of closing the sentence. Choose `max_length` so that few are cut
        (20 cuts 1.5 % of Flickr8k); a decoder that may say as many words needs one token more.
        """
        numbers = self.numbers(caption)[:max_length]
        return [BOS, *chain.from_iterable(map(self._spell, numbers)), EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Words of `ids` joined by spaces, specials dropped. IndexError for a foreign id."""
        silent = (PAD, BOS, EOS) if self.tokenization == "sentencepiece" else range(len(SPECIALS))
        return " ".join(self.words[i] for i in self.read(ids) if i not in silent)

    def _spell(self, number: int) -> tuple[int, ...]:
        """Ids of a word that the captions have."""
        if self.radix is None:
            return (number,)
        return (UNK,) * self.radix.digits if number == UNK else self.radix.spell(number - len(SPECIALS))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all. Raises ConfigError where `path` cannot be written."""
        path = Path(path)
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "tokenization": self.tokenization,
            **({"base": self.base} if self.base else {}),
            "words": self.words,
        }
        data = json.dumps(document, ensure_ascii=False, indent=0).encode()
        if len(data) > MAX_BYTES:
            raise ConfigError(
                f"{path}: a vocabulary of {len(self)} words needs {len(data)} bytes, "
                f"more than the limit of {MAX_BYTES}; raise min_count or set max_size"
            )
        try:
            with atomically(path) as file:
                file.write(data)
        except OSError as error:
            raise ConfigError(f"{path}: cannot write the vocabulary: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read what `save` wrote. Raises FormatError naming the file for anything else."""
        try:
            document = _read_document(Path(path))
            words, tokenization = document.get("words"), document.get("tokenization", "words")
            if not isinstance(words, list):
                raise FormatError("'words' is not a list")
            if not isinstance(tokenization, str):
                raise FormatError("'tokenization' is not text")
            base = document.get("base", 0)
            if not isinstance(base, int):
                raise FormatError("'base' is not a whole number")
            return cls(tuple(words), tokenization, base)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def _read_document(path: Path) -> dict[str, object]:
    if not path.is_file():  # a folder, a pipe or a device as well
        raise FormatError("no such file; a vocabulary is a JSON file")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise FormatError(f"larger than {MAX_BYTES} bytes, so not a vocabulary")
        document = json.loads(data)
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise FormatError(f"not a vocabulary: no 'format' that says {_FORMAT!r}")
    if document.get("version") != _VERSION:
        raise FormatError(f"vocabulary version {document.get('version')!r:.20} is not {_VERSION}; update laconic")
    return document


def pad(sequences: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Sequences of ids as one (n, longest) array, filled up with `PAD` on the right."""
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    batch = np.full((len(sequences), int(lengths.max(initial=0))), PAD, np.int64)
    filled = np.arange(batch.shape[1]) < lengths[:, None]
    batch[filled] = np.fromiter(chain.from_iterable(sequences), np.int64, int(lengths.sum()))
    return batch


def pad_groups(groups: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.int64]:
    """Groups of sequences, such as the captions of each image, as one array (groups, most in a group, longest)."""
    most = max(map(len, groups))
    flat = pad([ids for some in groups for ids in [*some, *([[]] * (most - len(some)))]])
    return flat.reshape(len(groups), most, -1)
