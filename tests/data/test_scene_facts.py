"""Questions about generated scenes and sentences about two: right, unambiguous, and no use without the scene."""

import re
from collections import Counter, defaultdict

import pytest

from laconic.data.scene_art import COLOURS, Thing
from laconic.data.scene_facts import ANSWERS, APART, LARGER, NUMBERS, load_scene_pairs, load_scene_questions
from laconic.data.scenes import Scene
from laconic.errors import ConfigError

QUESTIONS = load_scene_questions("train", 300)
PAIRS = load_scene_pairs("train", 200)


def the(scene: Scene, colour: str, shape: str) -> Thing:
    """The only such thing; fails where there is none or another."""
    (found,) = [thing for thing in scene.things if (thing.colour, thing.shape) == (colour, shape)]
    return found


def traits(scene: Scene) -> set[str]:
    """All colours and shapes in it."""
    return {trait for thing in scene.things for trait in (thing.colour, thing.shape)}


def answer(scene: Scene, text: str) -> str:
    """What is true of a scene, worked out from the question's words alone."""
    if text == "how many shapes are there?":
        return NUMBERS[len(scene.things)]
    if text == "what is the background?":
        return scene.ground
    if found := re.fullmatch(r"what colour is the (\w+)\?", text):
        (thing,) = [thing for thing in scene.things if thing.shape == found[1]]
        return thing.colour
    if found := re.fullmatch(r"what shape is (left|right) of the (\w+) (\w+)\?", text):
        other = the(scene, found[2], found[3])
        (thing,) = [thing for thing in scene.things if thing is not other]
        assert (thing.x < other.x) == (found[1] == "left")
        assert abs(thing.x - other.x) >= APART
        return thing.shape
    if found := re.fullmatch(r"what shape is (\w+)\?", text):
        (thing,) = [thing for thing in scene.things if thing.colour == found[1]]
        return thing.shape
    if found := re.fullmatch(r"is there a (\w+)( shape)?\?", text):
        return "yes" if found[1] in traits(scene) else "no"
    found = re.fullmatch(r"is the (\w+) (\w+) (left of|right of|larger than|smaller than) the (\w+) (\w+)\?", text)
    assert found, text
    first, second = the(scene, found[1], found[2]), the(scene, found[4], found[5])
    if found[3].endswith("of"):
        assert abs(first.x - second.x) >= APART
        return "yes" if (first.x < second.x) == (found[3] == "left of") else "no"
    small, large = sorted((first.radius, second.radius))
    assert large >= LARGER * small
    return "yes" if (first.radius > second.radius) == (found[3] == "larger than") else "no"


def true(left: Scene, right: Scene, sentence: str) -> bool:
    """Whether a sentence is true of two scenes, worked out from its words alone."""
    if found := re.fullmatch(r"there is a (\w+)(?: shape)? in the (left|right) picture", sentence):
        return found[1] in traits({"left": left, "right": right}[found[2]])
    if found := re.fullmatch(r"the background of the (left|right) picture is (\w+)", sentence):
        return {"left": left, "right": right}[found[1]].ground == found[2]
    if found := re.fullmatch(r"both pictures have a (\w+) shape", sentence):
        return all(found[1] in {thing.colour for thing in scene.things} for scene in (left, right))
    found = re.fullmatch(
        r"the left picture has (more|fewer|the same number of) shapes (than|as) the right picture", sentence
    )
    assert found, sentence
    more = len(left.things) - len(right.things)
    return {"more": more > 0, "fewer": more < 0, "the same number of": more == 0}[found[1]]


def test_every_answer_follows_from_the_scene() -> None:
    for item in QUESTIONS.items:
        scene = QUESTIONS.images[item.image].image
        assert isinstance(scene, Scene)
        assert item.answers == {answer(scene, item.text): 1}, (item.text, scene)
        assert set(item.answers) <= set(ANSWERS)


def test_every_label_follows_from_the_two_scenes() -> None:
    for pair in PAIRS.items:
        left, right = (PAIRS.images[row].image for row in (pair.left, pair.right))
        assert isinstance(left, Scene)
        assert isinstance(right, Scene)
        assert true(left, right, pair.sentence) == bool(pair.label), (pair.sentence, left, right)


def test_no_question_is_asked_twice_about_a_scene() -> None:
    asked = Counter((item.image, item.text) for item in QUESTIONS.items)
    assert max(asked.values()) == 1
    assert max(Counter(item.image for item in QUESTIONS.items).values()) <= 4


def form(text: str) -> str:
    """A text without what it says of the scene."""
    return re.sub(rf"\b({'|'.join([*COLOURS, *ANSWERS])})\b", "*", text)


def test_yes_and_no_are_as_frequent_within_each_form() -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in load_scene_questions("train", 2000).items:
        counts[form(item.text)].update(item.answers)
    asked = [count for count in counts.values() if set(count) <= {"yes", "no"}]
    assert len(asked) == 6
    for count in asked:
        assert 0.4 < count["yes"] / count.total() < 0.6


def test_a_sentence_says_nothing_of_its_label() -> None:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for pair in load_scene_pairs("train", 600).items:
        counts[form(pair.sentence)][pair.label] += 1
    assert len(counts) == 10
    for count in counts.values():
        assert 0.4 < count[1] / count.total() < 0.6


def test_all_follows_from_split_seed_and_index() -> None:
    assert load_scene_questions("val", 20).items == load_scene_questions("val", 20).items
    assert load_scene_pairs("val", 20).items == load_scene_pairs("val", 20).items
    assert load_scene_questions("val", 20).items[:40] == load_scene_questions("val", 40).items[:40]
    assert load_scene_pairs("val", 20).items == load_scene_pairs("val", 40).items[:80]
    for other in ({"split": "train"}, {"seed": 1}):
        options = {"split": "val", "count": 20} | other
        assert load_scene_questions(**options).items != load_scene_questions("val", 20).items
        assert load_scene_pairs(**options).items != load_scene_pairs("val", 20).items


@pytest.mark.parametrize("options", [{"split": "dev"}, {"split": "val", "each": 0}, {"split": "val", "count": 0}])
def test_what_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="scenes"):
        load_scene_questions(**options)
