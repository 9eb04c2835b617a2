"""Captions of generated scenes: five different sentences each, worded as people vary them.

A small grammar: per relation five slots (the relation, its converse, the background, "there is", a
second look), each with two wordings; size and colour are mentioned or left out at random. The other way
round, `names_rightly` reads from a caption which things it names. Knows what a thing is called, not
how it is painted or where it lies.
"""

import re
from collections.abc import Sequence

import numpy as np

from laconic.data.scene_art import COLOURS, SHAPES, Thing

WORDS = (5, 14)  # fewest and most words of a caption

_SIZE_WORDS = {
    "small": ("small", "small", "tiny"),
    "medium": (),
    "large": ("large", "large", "big"),
}

_GROUND_PHRASES = {
    "plain": ("on a plain background", "on a plain wall"),
    "sunset": ("at sunset", "in the sky at sunset"),
    "stripes": ("on a striped background", "on a striped wall"),
    "checks": ("on a checkered background", "on a checkered cloth"),
    "sand": ("on the sand", "lying on sand"),
    "night": ("at night", "in the night sky"),
    "dots": ("on a dotted background", "on a dotted cloth"),
    "sea": ("over the sea", "over the waves"),
}

_PLACES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}

# {A} is the first thing with article, colour and perhaps size, {a} the same without size, {bare}
# without article too; {all} and {others} are plurals: "hearts" if all are hearts, else "shapes".
_ALONE = (
    ("{A} {place} {ground}", "{a} {place} {ground}"),
    ("there is {A} {ground}", "a single {bare} {ground}"),
    ("{A} on its own {ground}", "{a} alone {ground}"),
    ("there is {A} {place}", "{A} is {place}"),
    ("just {A} {ground}", "one {bare} {place} {ground}"),
)
_TEMPLATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "left": _ALONE,
    "middle": _ALONE,
    "right": _ALONE,
    "beside": (
        ("{A} to the left of {B}", "{a} left of {b} {ground}"),
        ("{B} to the right of {A}", "{b} right of {a} {ground}"),
        ("{A} and {B} {ground}", "{A} next to {B} {ground}"),
        ("there is {A} next to {B}", "there is {b} to the right of {a}"),
        ("two {all} side by side {ground}", "{a} and {b} side by side"),
    ),
    "above": (
        ("{A} above {B}", "{a} above {b} {ground}"),
        ("{B} below {A}", "{b} under {a} {ground}"),
        ("{A} and {B} {ground}", "{A} over {B} {ground}"),
        ("there is {A} above {B}", "there is {b} below {a}"),
        ("two {all} one above the other {ground}", "{b} with {a} above it"),
    ),
    "inside": (
        ("{A} inside {B}", "{a} inside {b} {ground}"),
        ("{B} with {A} inside it", "{b} around {a} {ground}"),
        ("{A} and {B} {ground}", "{A} in {B} {ground}"),
        ("there is {A} inside {B}", "there is {b} around {a}"),
        ("two {all} one inside the other {ground}", "{a} in the middle of {b}"),
    ),
    "front": (
        ("{A} in front of {B}", "{a} in front of {b} {ground}"),
        ("{B} behind {A}", "{b} behind {a} {ground}"),
        ("{A} and {B} {ground}", "{A} partly covering {B}"),
        ("there is {A} in front of {B}", "there is {b} behind {a}"),
        ("two {all} one in front of the other {ground}", "{b} partly hidden behind {a}"),
    ),
    "between": (
        ("{A} between {b} and {c}", "{a} between {b} and {c}"),
        ("{b} and {c} with {a} between them", "{b} {a} and {c} in a row"),
        ("{b} {a} and {c} {ground}", "{A} between two {others} {ground}"),
        ("there is {a} between {b} and {c}", "there are three {all} in a row {ground}"),
        ("three {all} in a row {ground}", "{a} next to {b} and {c}"),
    ),
    "over": (
        ("{A} above {b} and {c}", "{a} above {b} and {c} {ground}"),
        ("{b} and {c} below {a}", "{b} and {c} under {a}"),
        ("{a} {b} and {c} {ground}", "{A} above two {others} {ground}"),
        ("there is {a} above {b} and {c}", "there are three {all} {ground}"),
        ("three {all} with {a} above the others", "{b} and {c} with {a} above them"),
    ),
}


def describe(things: Sequence[Thing], relation: str, ground: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Five different captions in random order, lower case, of WORDS[0] to WORDS[1] words each."""
    captions: list[str] = []
    for wordings in _TEMPLATES[relation]:
        caption = ""
        while caption in captions or not WORDS[0] <= len(caption.split()) <= WORDS[1]:
            caption = _fill(_pick(rng, wordings), things, relation, ground, rng)
        captions.append(caption)
    return tuple(captions[int(index)] for index in rng.permutation(len(captions)))


def names_rightly(caption: str, things: Sequence[Thing]) -> bool:
    """Whether a caption names at least one thing, and none that is not there.

    A thing is named by its shape, with or without its colour; each must be another thing of the scene. A plural such
    as "hearts" needs two of them, "shapes" names nothing. Sizes, places and relations are not looked at.
    """
    words = caption.split()
    named = [(before, word) for before, word in zip(["", *words], words, strict=False) if word in _NUMBERS]
    left = [(thing.colour, thing.shape) for thing in things]
    for colour, word in sorted(named, key=lambda name: name[0] not in COLOURS):  # those with a colour choose first
        shape, count = _NUMBERS[word]
        found = [thing for thing in left if thing[1] == shape and (colour not in COLOURS or colour == thing[0])]
        if len(found) < count:
            return False
        for thing in found[:count]:
            left.remove(thing)
    return bool(named)


def _fill(wording: str, things: Sequence[Thing], relation: str, ground: str, rng: np.random.Generator) -> str:
    def phrase(match: re.Match[str]) -> str:
        field = match[1]
        if field == "ground":
            return _pick(rng, _GROUND_PHRASES[ground])
        if field == "place":
            return _PLACES[relation]
        if field == "bare":
            return _noun(things[0], rng, sized=False)
        if field in ("all", "others"):
            return _plural(things if field == "all" else things[1:])
        return _with_article(_noun(things["abc".index(field.lower())], rng, sized=field.isupper()))

    return re.sub(r"\{(\w+)\}", phrase, wording)


def _noun(thing: Thing, rng: np.random.Generator, sized: bool) -> str:
    words = [thing.shape]
    if rng.random() < 0.93:
        words.insert(0, thing.colour)
    if sized and thing.size != "medium" and rng.random() < 0.7:
        words.insert(0, _pick(rng, _SIZE_WORDS[thing.size]))
    return " ".join(words)


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _plural(things: Sequence[Thing]) -> str:
    shapes = {thing.shape for thing in things}
    return _several(shapes.pop() if len(shapes) == 1 else "shape")


def _several(name: str) -> str:
    return name + ("es" if name.endswith("s") else "s")


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


_NUMBERS = {shape: (shape, 1) for shape in SHAPES} | {_several(shape): (shape, 2) for shape in SHAPES}
"""Words that name things: of which shape, and how many at least."""
