"""Accuracy of answers to visual questions, with the normalisation of the VQA challenge (Antol et al. 2015).

    accuracy("two dogs.", {"2 dogs": 7, "dogs": 3})     # 1.0

An answer counts as much as three of the ten people gave it, averaged over all choices of nine of them. Where fewer
were asked, as many as were.
"""

import re
from collections.abc import Mapping

ENOUGH = 3  # people who gave an answer make it right
NUMBERS = {
    "none": 0,
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}
ARTICLES = {"a", "an", "the"}
_NEGATED = (  # verbs before an apostrophe and t that people leave out
    *("ain", "aren", "can", "couldn", "didn", "doesn", "don", "hadn", "hasn", "haven", "isn", "mightn", "mustn"),
    *("needn", "shouldn", "wasn", "weren", "won", "wouldn"),
)
CONTRACTIONS = {
    **{f"{stem}t": f"{stem}'t" for stem in _NEGATED},
    **{f"{word}ve": f"{word}'ve" for word in ("could", "might", "must", "should", "would", "they", "you", "who")},
    **{f"{word}re": f"{word}'re" for word in ("they", "you")},
    **{f"{word}d": f"{word}'d" for word in ("they", "you", "who", "how", "where")},
    **{f"{word}ll": f"{word}'ll" for word in ("they", "you", "that", "who")},
    **{f"{word}s": f"{word}'s" for word in ("that", "there", "what", "where", "who", "how", "when", "why", "let")},
    "im": "i'm", "ive": "i've", "oclock": "o'clock", "maam": "ma'am", "yall": "y'all",
}  # fmt: skip
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def normalise(answer: str) -> str:
    """Lower case, without punctuation and articles, numbers as digits, apostrophes where they belong."""
    text = _without_marks(" ".join(answer.lower().split()))
    words = (str(NUMBERS.get(word, word)) for word in text.split() if word not in ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def _without_marks(text: str) -> str:
    """A mark goes where it stands beside a space or the text has a number such as 1,000; else a space replaces it."""
    number, found = _THOUSANDS.search(text), text
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if number or beside else " ")
    return _PERIOD.sub("", found)


def accuracy(answer: str, given: Mapping[str, int]) -> float:
    """Accuracy of one answer, 0 to 1.

    Args:
        given: how many people gave each answer.
    """
    people = sum(given.values())
    if not people:
        return 0.0
    said = normalise(answer)
    same = sum(count for text, count in given.items() if normalise(text) == said)
    if people == 1:
        return float(same)
    enough = min(ENOUGH, people - 1)
    # leaving out one of those who agree, or one of those who do not
    without = min(1.0, (same - 1) / enough) if same else 0.0
    return (same * without + (people - same) * min(1.0, same / enough)) / people
