"""Questions about generated scenes, and sentences about two of them.

Whoever has not seen the scene knows little: of each form, answers are as often one as the other, as far as scenes
allow, and a sentence is true as often as not. All follows from (seed, split, index).
"""

from collections.abc import Callable

import numpy as np

from laconic.data.pairs import Pair, Pairs
from laconic.data.questions import Question, Questions
from laconic.data.scene_art import COLOURS, GROUNDS, SHAPES, Thing
from laconic.data.scenes import COUNTS, Scene, Scenes
from laconic.errors import ConfigError

SIDES = ("left", "right")
NUMBERS = ("none", "one", "two", "three")
MOST = 20  # questions about a scene
APART = 0.12  # of the image's side: what is left of something, or above it, is so by this much

LARGER = 1.25  # times the radius of what it is larger than

Asked = tuple[str, str]  # question and answer
Said = tuple[str, str]  # a true sentence and a false one


def load_scene_questions(
    split: str, count: int | None = None, each: int = 4, seed: int = 0, size: int = 96
) -> Questions:
    """`each` questions about every scene; ConfigError as of Scenes."""
    _check_each(each)
    scenes = Scenes(COUNTS.get(split, 1) if count is None else count, split, seed, size)
    items: list[Question] = []
    for row in range(len(scenes)):
        rng = np.random.default_rng((seed, list(COUNTS).index(split), row, 1))
        for text, answer in _ask(scenes.scene(row), rng, each):
            items.append(Question(len(items), row, text, {answer: 1}))
    return Questions(scenes, tuple(items))


def load_scene_pairs(split: str, count: int | None = None, each: int = 4, seed: int = 0, size: int = 96) -> Pairs:
    """`each` sentences about every two scenes that follow one another; ConfigError as of Scenes."""
    _check_each(each)
    scenes = Scenes(2 * (COUNTS.get(split, 1) if count is None else count), split, seed, size)
    items: list[Pair] = []
    for number in range(len(scenes) // 2):
        rng = np.random.default_rng((seed, list(COUNTS).index(split), number, 2))
        rows = 2 * number, 2 * number + 1
        left, right = (scenes.scene(row) for row in rows)
        for place in range(each):
            label = int(rng.integers(2))
            items.append(Pair(f"{number}-{place}", *rows, _claim(left, right, bool(label), rng), label))
    return Pairs(scenes, tuple(items))


def _check_each(each: int) -> None:
    if not 1 <= each <= MOST:
        raise ConfigError(f"scenes: each must be 1 to {MOST}, not {each}")


# Questions. Each gives None where the scene does not allow it.


def _ask(scene: Scene, rng: np.random.Generator, count: int) -> list[Asked]:
    found: dict[str, str] = {}
    while len(found) < count:
        asked = _FORMS[int(rng.integers(len(_FORMS)))](scene, rng)
        if asked is not None and asked[0] not in found:
            found[asked[0]] = asked[1]
        elif rng.random() < 0.02:  # a scene of one thing has few questions
            break
    return list(found.items())


def _colour(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _only(scene, rng, lambda thing: thing.shape)
    return None if thing is None else (f"what colour is the {thing.shape}?", thing.colour)


def _shape(scene: Scene, rng: np.random.Generator) -> Asked | None:
    thing = _only(scene, rng, lambda thing: thing.colour)
    return None if thing is None else (f"what shape is {thing.colour}?", thing.shape)


def _number(scene: Scene, rng: np.random.Generator) -> Asked | None:
    return "how many shapes are there?", NUMBERS[len(scene.things)]


def _ground(scene: Scene, rng: np.random.Generator) -> Asked | None:
    return "what is the background?", scene.ground


def _there(scene: Scene, rng: np.random.Generator) -> Asked | None:
    yes = bool(rng.integers(2))
    return f"is there a {_traits(scene, rng)[0 if yes else 1]}?", "yes" if yes else "no"


def _beside(scene: Scene, rng: np.random.Generator) -> Asked | None:
    two = rng.permutation(len(scene.things))[:2]
    if len(two) < 2:
        return None
    first, second = (scene.things[int(place)] for place in two)
    if abs(first.x - second.x) < APART:
        return None
    side = ("left", "right")[int(rng.integers(2))]
    true = (first.x < second.x) == (side == "left")
    text = f"is the {first.colour} {first.shape} {side} of the {second.colour} {second.shape}?"
    return text, "yes" if true else "no"


def _neighbour(scene: Scene, rng: np.random.Generator) -> Asked | None:
    if len(scene.things) != 2:
        return None
    first, second = (scene.things[int(place)] for place in rng.permutation(2))
    if abs(first.x - second.x) < APART:
        return None
    side = "left" if first.x < second.x else "right"
    return f"what shape is {side} of the {second.colour} {second.shape}?", first.shape


def _larger(scene: Scene, rng: np.random.Generator) -> Asked | None:
    two = rng.permutation(len(scene.things))[:2]
    if len(two) < 2:
        return None
    first, second = (scene.things[int(place)] for place in two)
    if max(first.radius, second.radius) < LARGER * min(first.radius, second.radius):
        return None
    word = ("larger", "smaller")[int(rng.integers(2))]
    true = (first.radius > second.radius) == (word == "larger")
    text = f"is the {first.colour} {first.shape} {word} than the {second.colour} {second.shape}?"
    return text, "yes" if true else "no"


_FORMS: tuple[Callable[[Scene, np.random.Generator], Asked | None], ...] = (
    _colour, _shape, _number, _ground, _there, _beside, _neighbour, _larger,
)  # fmt: skip


# Sentences. Each form gives a true and a false sentence of two scenes, or None where they allow only one of them: a
# form that were possible for one label alone would tell the label.


def _claim(left: Scene, right: Scene, true: bool, rng: np.random.Generator) -> str:
    """A sentence that is true of the two scenes, or false."""
    while True:
        said = _CLAIMS[int(rng.integers(len(_CLAIMS)))](left, right, rng)
        if said is not None:
            return said[0] if true else said[1]


def _in_one(left: Scene, right: Scene, rng: np.random.Generator) -> Said | None:
    side = int(rng.integers(2))
    held, missing = (f"there is a {trait} in the {SIDES[side]} picture" for trait in _traits((left, right)[side], rng))
    return held, missing


def _background(left: Scene, right: Scene, rng: np.random.Generator) -> Said | None:
    side = int(rng.integers(2))
    ground = (left, right)[side].ground
    others = [other for other in GROUNDS if other != ground]
    held, missing = (
        f"the background of the {SIDES[side]} picture is {one}"
        for one in (ground, others[int(rng.integers(len(others)))])
    )
    return held, missing


def _in_both(left: Scene, right: Scene, rng: np.random.Generator) -> Said | None:
    first, second = ({thing.colour for thing in scene.things} for scene in (left, right))
    common, single = sorted(first & second), sorted(first ^ second)
    if not common or not single:
        return None
    held, missing = (colours[int(rng.integers(len(colours)))] for colours in (common, single))
    return f"both pictures have a {held} shape", f"both pictures have a {missing} shape"


def _numbers(left: Scene, right: Scene, rng: np.random.Generator) -> Said | None:
    more = len(left.things) - len(right.things)
    if more == 0:
        held, other = "the same number of shapes as", ("more shapes than", "fewer shapes than")
    else:
        held = "more shapes than" if more > 0 else "fewer shapes than"
        other = ("fewer shapes than" if more > 0 else "more shapes than", "the same number of shapes as")
    wrong = other[int(rng.integers(2))]
    return f"the left picture has {held} the right picture", f"the left picture has {wrong} the right picture"


_CLAIMS: tuple[Callable[[Scene, Scene, np.random.Generator], Said | None], ...] = (
    _in_one,
    _background,
    _in_both,
    _numbers,
)


# Parts


def _only(scene: Scene, rng: np.random.Generator, key: Callable[[Thing], str]) -> Thing | None:
    """A thing that shares this with no other, if there is one."""
    keys = [key(thing) for thing in scene.things]
    alone = [thing for thing in scene.things if keys.count(key(thing)) == 1]
    return alone[int(rng.integers(len(alone)))] if alone else None


def _traits(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A shape or a colour of something in the scene, and one of nothing in it."""
    of_shape = bool(rng.integers(2))
    held = sorted({thing.shape if of_shape else thing.colour for thing in scene.things})
    missing = [one for one in (SHAPES if of_shape else COLOURS) if one not in held]
    some, none = (one[int(rng.integers(len(one)))] for one in (held, missing))
    return (some, none) if of_shape else (f"{some} shape", f"{none} shape")


ANSWERS = (*COLOURS, *SHAPES, *NUMBERS[1:], *GROUNDS, "yes", "no")
"""All that a question about a scene may be answered with."""
