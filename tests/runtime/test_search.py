"""The search in C keeps the books of laconic.decode: on a captioner that is nothing but a table of the next words."""

import numpy as np
import pytest

from laconic.decode.search import Decoding
from laconic.errors import FormatError, TrainingError
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import NONE, Place
from laconic.runtime.plan import Plan
from laconic.runtime.program import Builder
from laconic.runtime.tables import pack_table
from laconic.text import SPECIALS, Vocabulary

pytestmark = pytest.mark.skipif(library() is None, reason="there is no compiled library")

WORDS = 23
SPECIAL = {"pad": 0, "unk": 1, "bos": 2, "eos": 3}


def plan_of(logits: np.ndarray, names: list[str] | None = None, **special: int) -> Plan:
    """A captioner whose next word depends on the last one alone: logits (last word, next word)."""
    builder = Builder()
    grid, step = builder.buffer(1, "POSITIONS"), builder.buffer(len(logits), "ROWS")
    one = int(np.float32(1).view(np.uint32))
    table = builder.add_matrix(pack_table(logits.astype(np.float32)))
    builder.add("step", "EMBED", y=Place(step), matrix=table, activation="LINEARLY", scale=one, positions=NONE)
    facts = {"grid": grid, "channels": 1, "positions": 4, "logits": step, **SPECIAL, **special}
    return builder.finish(facts, names or [f"w{i}" for i in range(len(logits))])


def tied_logits(seed: int, words: int = WORDS) -> np.ndarray:
    """Four likely words and others hopeless: sums of exponentials are exact, so that equals are equal to the bit."""
    random = np.random.default_rng(seed)
    rest = random.choice([-100.0, -200.0, -300.0], size=(words, words - 4))
    return random.permuted(np.concatenate([np.zeros((words, 4)), rest], axis=1), axis=1)


def images(count: int) -> Inputs:
    return Inputs(features=np.ones((count, 1), np.float32), positions=np.ones(count, np.uint32))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(beam=1, max_length=6),
        Decoding(beam=2, max_length=1),
        Decoding(beam=5, max_length=7),
        Decoding(beam=7, max_length=5, length_penalty=1.0, allow_unknown=True),
        Decoding(beam=40, max_length=4, length_penalty=0.5),
    ],
)
def test_of_equals_the_same_ones_are_kept(seed: int, decoding: Decoding) -> None:
    plan = plan_of(tied_logits(seed))
    found = NativePath(plan).search(images(3), decoding)
    wanted = NumpyPath(plan).search(images(3), decoding)
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in wanted]
    for ours, theirs in zip(found[2], wanted[2], strict=True):
        assert ours.finished == theirs.finished
        assert ours.score == pytest.approx(theirs.score, rel=1e-6)


@pytest.mark.parametrize("words", [4, 15, 16, 17, 1000])
@pytest.mark.parametrize("beam", [1, 5, 17])
def test_random_logits(words: int, beam: int) -> None:
    logits = np.random.default_rng(words).normal(0, 4, size=(words, words))
    plan, decoding = plan_of(logits), Decoding(beam=beam, max_length=5)
    found, wanted = (path(plan).search(images(9), decoding) for path in (NativePath, NumpyPath))
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in wanted]
    for ours, theirs in zip(found[8], wanted[8], strict=True):
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-5)


def test_ids_that_mean_two_things() -> None:
    plan, decoding = plan_of(tied_logits(1), pad=3, unk=2), Decoding(beam=4, max_length=5)
    found, wanted = (path(plan).search(images(1), decoding) for path in (NativePath, NumpyPath))
    assert [h.tokens for h in found[0]] == [h.tokens for h in wanted[0]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("word", [0, 5, WORDS - 1])
def test_numbers_that_are_no_logits(wrong: float, word: int) -> None:
    logits = tied_logits(2)
    logits[:, word] = wrong
    with pytest.raises(TrainingError, match="no probabilities"):
        NativePath(plan_of(logits)).search(images(2), Decoding(beam=3))


def test_no_word_that_is_allowed() -> None:
    logits = np.full((WORDS, WORDS), -np.inf)
    logits[:, SPECIAL["pad"]] = 0.0
    with pytest.raises(TrainingError, match="probability 0"):
        NativePath(plan_of(logits)).search(images(1), Decoding(beam=3))


def test_unlikely_words_count_as_they_should() -> None:
    logits = np.zeros((WORDS, WORDS))
    logits[:, 7] = 30.0
    found = NativePath(plan_of(logits)).search(images(1), Decoding(beam=2, max_length=1))[0]
    assert [h.tokens for h in found] == [(7,), ()]
    np.testing.assert_allclose([h.score for h in found], [0.0, -30.0], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("words", [1, 16, 17, 20, 256])
@pytest.mark.parametrize("decoding", [Decoding(1, 4), Decoding(5, 5), Decoding(30, 3, 0.5, allow_unknown=True)])
def test_words_spelled_by_digits(seed: int, words: int, decoding: Decoding) -> None:
    """Every number of words to the base 16, that which makes all digits possible among them."""
    plan = spelling_plan(tied_logits(seed, 20), words)
    found = NativePath(plan).search(images(3), decoding)
    wanted = NumpyPath(plan).search(images(3), decoding)
    assert [[h.tokens for h in image] for image in found] == [[h.tokens for h in image] for image in wanted]
    spelled = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(words))), base=16)
    said = [word for image in found for h in image for word in spelled.read(h.tokens)]
    assert decoding.allow_unknown or 1 not in said


def spelling_plan(logits: np.ndarray, words: int) -> Plan:
    return plan_of(logits, names=[*SPECIALS, *(f"w{i}" for i in range(words))], vocabulary=20, words=words + 4)


@pytest.mark.parametrize("words", [4, 5, 6])
def test_a_plan_that_lies_about_its_words_is_damaged(words: int) -> None:
    plan = spelling_plan(tied_logits(0, 20), 2)
    plan.header["words"] = words
    if words == 6:
        NativePath(plan)
        plan.header["eos"] = 4
    with pytest.raises(FormatError, match="damaged"):
        NativePath(plan)
