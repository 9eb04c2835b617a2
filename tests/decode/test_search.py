"""Search against enumeration and against a slow search written from its definition."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.decode import search
from laconic.decode.beams import Hypothesis
from laconic.decode.search import MOST_TOKENS, Captioner, Decoding, Sampling, SpecialIds
from laconic.errors import ConfigError, TrainingError

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIAL = SpecialIds(PAD, UNK, BOS, EOS)
beam_search, decode, greedy, sample = (
    partial(function, special=SPECIAL) for function in (search.beam_search, search.decode, search.greedy, search.sample)
)


class MarkovState(NamedTuple):
    image: np.ndarray
    last: np.ndarray


class Markov:
    """Next word by a table that depends on the image and the last two tokens: (images, V, V, V)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(np.float32)
        self.rows_per_step: list[int] = []

    def start(self, images: list[int]) -> MarkovState:
        return MarkovState(np.array(images), np.full(len(images), PAD))

    def step(self, state: MarkovState, tokens: np.ndarray, k: int | None) -> tuple[np.ndarray, np.ndarray, MarkovState]:
        assert state.image.shape == tokens.shape  # one token per row, or the search lost count
        self.rows_per_step.append(len(tokens))
        log_probs = self.table[state.image, state.last, tokens]
        ids = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(log_probs, ids, axis=1), ids, MarkovState(state.image, tokens)

    def select(self, state: MarkovState, rows: np.ndarray) -> MarkovState:
        return MarkovState(*(column[rows] for column in state))


def markov(seed: int, images: int = 3, vocabulary: int = 7, sharpness: float = 2.0) -> Markov:
    """A random captioner whose rows are probability distributions."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(images, *3 * [vocabulary]))
    return Markov(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def tied(seed: int, images: int = 3, vocabulary: int = 7) -> Markov:
    """A captioner of few different costs, exact in binary: sums are exact and ties are many."""
    costs = np.random.default_rng(seed).integers(1, 7, (images, *3 * [vocabulary]))
    return Markov(-costs / 4)


def cost(captioner: Markov, image: int, tokens: tuple[int, ...]) -> tuple[float, ...]:
    path = (PAD, BOS, *tokens)
    table = captioner.table[image]
    return tuple(float(table[a, b, c]) for a, b, c in zip(path, path[1:], path[2:], strict=False))


def slow_search(captioner: Markov, image: int, decoding: Decoding) -> list[Hypothesis]:
    """Beam search of one image as defined: all candidates, no early stop, nothing vectorised."""
    vocabulary = captioner.table.shape[-1]
    allowed = set(range(vocabulary)) - ({PAD, BOS} if decoding.allow_unknown else {PAD, BOS, UNK})
    live: list[tuple[int, ...]] = [()]
    stored: list[Hypothesis] = []
    for step in range(decoding.max_length):
        candidates = []
        for tokens in live:
            steps = [(cost(captioner, image, (*tokens, word)), word) for word in sorted(allowed)]
            steps.sort(key=lambda candidate: -candidate[0][-1])
            candidates += [(log_probs, (*tokens, word)) for log_probs, word in steps]
        candidates.sort(key=lambda candidate: -sum(candidate[0]))
        live = []
        for log_probs, tokens in candidates[: decoding.beam]:
            finished = tokens[-1] == EOS
            if finished or step + 1 == decoding.max_length:
                score = sum(log_probs) / len(log_probs) ** decoding.length_penalty
                words = tokens[:-1] if finished else tokens
                stored.append(Hypothesis(words, score, log_probs, finished))
            else:
                live.append(tokens)
    return sorted(stored, key=lambda hypothesis: -hypothesis.score)[: decoding.beam]


decodings = st.builds(
    Decoding,
    beam=st.integers(1, 5),
    max_length=st.integers(1, 7),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    allow_unknown=st.booleans(),
)
seeds = st.integers(0, 2**32 - 1)


@given(seeds, decodings)
@settings(max_examples=150, deadline=None)
def test_beam_search_is_the_slow_search_ties_included(seed: int, decoding: Decoding) -> None:
    """Early stop, batching and vectorisation change nothing."""
    captioner = tied(seed)
    expected = [slow_search(captioner, image, decoding) for image in range(3)]
    assert beam_search(captioner, [0, 1, 2], decoding) == expected


@given(seeds, decodings)
@settings(max_examples=100, deadline=None)
def test_properties(seed: int, decoding: Decoding) -> None:
    captioner = markov(seed)
    together = decode(captioner, [2, 0, 1], decoding)
    assert together == [decode(captioner, [image], decoding)[0] for image in (2, 0, 1)]
    for image, hypotheses in zip((2, 0, 1), together, strict=True):
        assert 1 <= len(hypotheses) <= decoding.beam
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({(found.tokens, found.finished) for found in hypotheses}) == len(hypotheses)
        for found in hypotheses:
            assert not {PAD, BOS, EOS} & set(found.tokens)
            assert decoding.allow_unknown or UNK not in found.tokens
            emitted = (*found.tokens, EOS) if found.finished else found.tokens
            assert len(emitted) <= decoding.max_length
            assert found.finished or len(emitted) == decoding.max_length
            assert found.log_probs == cost(captioner, image, emitted)
            score = sum(found.log_probs) / len(emitted) ** decoding.length_penalty
            assert found.score == pytest.approx(score, abs=1e-9)


@given(seeds, st.integers(1, 7), st.sampled_from([0.0, 1.0]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_greedy_is_beam_one(seed: int, length: int, penalty: float, allow_unknown: bool) -> None:
    decoding = Decoding(1, length, penalty, allow_unknown)
    for captioner in (tied(seed), markov(seed)):
        assert greedy(captioner, [0, 1, 2], decoding) == beam_search(captioner, [0, 1, 2], decoding)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
def test_a_wide_beam_finds_what_enumeration_finds(length_penalty: float) -> None:
    captioner = markov(7, images=2, vocabulary=7)
    everything = beam_search(captioner, [0, 1], Decoding(500, 4, length_penalty))
    for image in (0, 1):
        sentences = [(*words, EOS) for n in range(4) for words in product((4, 5, 6), repeat=n)]
        sentences += list(product((4, 5, 6), repeat=4))
        ranked = sorted(
            ((sum(cost(captioner, image, s)) / len(s) ** length_penalty, s) for s in sentences),
            reverse=True,
        )
        found = [(*h.tokens, EOS) if h.finished else h.tokens for h in everything[image]]
        assert found == [sentence for _, sentence in ranked]
        scores = [hypothesis.score for hypothesis in everything[image]]
        np.testing.assert_allclose(scores, [score for score, _ in ranked], rtol=1e-12)


def test_max_length_counts_eos() -> None:
    table = np.full((1, 6, 6, 6), -9.0)
    table[:, :, BOS, 4] = table[:, BOS, 4, 5] = table[:, 4, 5, EOS] = -0.125  # "4 5 eos"
    for beam in (1, 2):
        whole = decode(Markov(table), [0], Decoding(beam, max_length=3))[0][0]
        assert whole == Hypothesis((4, 5), -0.375, (-0.125,) * 3, finished=True)
        cut = decode(Markov(table), [0], Decoding(beam, max_length=2))[0][0]
        assert cut == Hypothesis((4, 5), -0.25, (-0.125,) * 2, finished=False)


def test_unknown_is_emitted_only_when_allowed() -> None:
    table = np.full((1, 6, 6, 6), -3.0)
    table[..., UNK] = -0.5
    assert decode(Markov(table), [0], Decoding(max_length=2))[0][0].tokens == ()
    assert decode(Markov(table), [0], Decoding(max_length=2, allow_unknown=True))[0][0].tokens == (
        UNK,
        UNK,
    )


def test_search_stops_early_and_drops_images_that_are_done() -> None:
    log_probs = np.full((2, 7, 7, 7), -6.0)
    log_probs[0, ..., EOS] = -0.01  # image 0 ends at once
    log_probs[1, ..., 4] = -0.01  # image 1 never ends
    captioner = Markov(log_probs)
    beam_search(captioner, [0, 1, 0, 0], Decoding(beam=2, max_length=30))
    rows = captioner.rows_per_step
    assert rows[0] == 4
    assert max(rows[3:]) <= 2
    captioner.rows_per_step = []
    beam_search(captioner, [0], Decoding(beam=2, max_length=30))
    assert len(captioner.rows_per_step) < 5
    captioner.rows_per_step = []
    greedy(captioner, [0, 1, 0], Decoding(max_length=4))
    assert captioner.rows_per_step == [3, 1, 1, 1]


def test_special_ids_of_another_vocabulary() -> None:
    """GPT-like: one id for bos, eos and pad; it ends captions and is not forbidden."""
    special = SpecialIds(pad=5, unk=5, bos=5, eos=5)
    log_probs = np.full((1, 6, 6, 6), -4.0)
    log_probs[:, :, 5, 0] = log_probs[:, :, 0, 5] = -0.25
    for beam in (1, 3):
        best = search.decode(Markov(log_probs), [0], Decoding(beam), special)[0][0]
        assert best == Hypothesis((0,), -0.5, (-0.25, -0.25), finished=True)


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3)])
def test_samples_follow_the_distribution(temperature: float, top_k: int | None) -> None:
    captioner = markov(3, images=2, vocabulary=9, sharpness=1.0)
    sampling = Sampling(20_000, temperature, top_k, max_length=2)
    drawn = sample(captioner, [1, 0], sampling, np.random.default_rng(0))

    def distribution(image: int, last: int, word: int) -> np.ndarray:
        log_probs = captioner.table[image, last, word].astype(np.float64) / temperature
        log_probs[[PAD, UNK, BOS]] = -np.inf
        if top_k is not None:
            log_probs[log_probs < np.sort(log_probs)[-top_k]] = -np.inf
        return np.exp(log_probs) / np.exp(log_probs).sum()

    for image, samples in zip((1, 0), drawn, strict=True):
        pairs = np.array([(*h.tokens, EOS)[:2] if h.tokens else (EOS, PAD) for h in samples])
        expected = np.zeros((9, 9))
        first = distribution(image, PAD, BOS)
        for word in range(9):
            expected[word] = first[word] * distribution(image, BOS, word)
        expected[EOS] = 0
        expected[EOS, PAD] = first[EOS]
        counts = np.zeros((9, 9))
        np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
        assert counts[expected == 0].sum() == 0
        possible = expected > 0
        degrees = possible.sum() - 1
        # mean + 4 standard deviations of the chi-square distribution
        limit = degrees + 4 * np.sqrt(2 * degrees)
        assert chi_square(counts[possible], expected[possible]) < limit


def test_samples_report_the_models_own_log_probs() -> None:
    captioner = markov(5)
    sampling = Sampling(50, temperature=3.0, top_k=4, max_length=5)
    drawn = sample(captioner, [0, 2], sampling, np.random.default_rng(1))
    assert [len(samples) for samples in drawn] == [50, 50]
    for image, samples in zip((0, 2), drawn, strict=True):
        for found in samples:
            emitted = (*found.tokens, EOS) if found.finished else found.tokens
            assert found.log_probs == cost(captioner, image, emitted)
            assert found.score == pytest.approx(sum(found.log_probs), abs=1e-9)
    assert drawn == sample(captioner, [0, 2], sampling, np.random.default_rng(1))
    cold = sample(captioner, [0], Sampling(3, temperature=1e-3), np.random.default_rng(0))
    assert cold[0] == 3 * greedy(captioner, [0], Decoding())[0]


def every_way(captioner: Captioner[MarkovState]) -> list[Callable[[], object]]:
    rng = np.random.default_rng(0)
    return [
        lambda: decode(captioner, [0, 1], Decoding(1)),
        lambda: decode(captioner, [0, 1], Decoding(3)),
        lambda: sample(captioner, [0, 1], Sampling(2), rng),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"gave NaN for word 1 of image 1 of the batch"),
        (2.5, r"gave log-probability 2\.5 \(above 0\) for word 1 of image 1 of the batch"),
        (-np.inf, r"offers no word 1 for image 1 of the batch"),
    ],
)
def test_nonsense_from_the_captioner_is_an_error(value: float, message: str) -> None:
    table = np.full((2, 6, 6, 6), -2.0)
    table[1] = value
    for attempt in every_way(Markov(table)):
        with pytest.raises(TrainingError, match=message):
            attempt()


def test_a_captioner_that_breaks_the_protocol_is_told_so() -> None:
    class OneRowShort(Markov):
        def step(self, state, tokens, k):
            log_probs, ids, state = super().step(state, tokens, k)
            return log_probs[1:], ids[1:], state

    for attempt in every_way(OneRowShort(np.full((2, 6, 6, 6), -2.0))):
        with pytest.raises(ValueError, match=r"ids \(\d+, \d\) for \d rows"):
            attempt()


def test_a_tiny_temperature_takes_the_likeliest_word() -> None:
    captioner = markov(0)
    (found,) = sample(captioner, [0], Sampling(3, 1e-300), np.random.default_rng(0))
    (expected,) = decode(captioner, [0], Decoding(1))
    assert [one.tokens for one in found] == [expected[0].tokens] * 3


def test_no_images_give_no_captions() -> None:
    captioner = markov(0)
    assert decode(captioner, [], Decoding()) == decode(captioner, [], Decoding(1)) == []
    assert sample(captioner, [], Sampling(), np.random.default_rng(0)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: Decoding(beam=0), "beam is 0, must be at least 1"),
        (lambda: Decoding(beam=10**5), "beam is 100000, must be at most 1000"),
        (lambda: Decoding(max_length=-1), "max_length is -1, must be from 1 to 500"),
        (lambda: Decoding(max_length=10**11), "max_length is 100000000000"),
        (lambda: Sampling(max_length=MOST_TOKENS + 1), "max_length is 501"),
        (lambda: Decoding(length_penalty=float("nan")), "length_penalty is nan"),
        (lambda: Decoding(length_penalty=-0.5), "length_penalty is -0.5"),
        (lambda: Sampling(count=0), "count is 0"),
        (lambda: Sampling(top_k=0), "top_k is 0"),
        (lambda: Sampling(temperature=0.0), r"temperature is 0\.0, must be above 0"),
    ],
)
def test_settings_that_cannot_be_right(options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options()
