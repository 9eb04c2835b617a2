"""From a captioner to captions: greedy, beam search and sampling, over one small protocol.

Several images are decoded at once. The search keeps books only: which words were emitted, what they
cost, which rows the captioner should go on with. It does not know what an image or a captioner's
state is, turns no id into a word, and needs numpy alone, so that one search serves PyTorch models
and engines without PyTorch.

Lengths count emitted tokens, eos included and bos not: a caption of 9 words and its eos is 10 long.
"""

import math
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from laconic.decode.beams import Beams, Floats, Hypothesis, Ints
from laconic.errors import ConfigError, TrainingError
from laconic.radix import Radix

MOST_BEAMS = 1000  # each offers as many words and more, so memory grows with the square
MOST_TOKENS = 500  # of a caption: room for a paragraph, and for what a search keeps of each beam
State = TypeVar("State")


class Captioner(Protocol[State]):
    """What a model must offer to be decoded. A state has rows: one caption in the making each."""

    def start(self, images: Any) -> State:
        """State of one row per image, in order."""

    def step(self, state: State, tokens: Ints, k: int | None) -> tuple[Floats, Ints, State]:
        """Read `tokens` (rows,), the words just emitted, and offer the next ones.

        Returns log-probabilities (rows, k) float32 and ids (rows, k) int64 of the `k` best next
        words of each row, best first, and the new state. Where `k` exceeds the vocabulary, all of
        the vocabulary is returned; with None all of it in any order, which saves sorting it.
        """

    def select(self, state: State, rows: Ints) -> State:
        """State made of `rows` (any,) of this one: repeats, drops and reorders."""


@dataclass(frozen=True)
class SpecialIds:
    """Ids that are not words, of the vocabulary whose ids a captioner gives; and how it spells words, if it does."""

    pad: int
    unk: int
    bos: int
    eos: int
    radix: Radix | None = None

    def tokens_at_most(self, words: int) -> int:
        """See the function of that name."""
        return tokens_at_most(words, self.radix.digits if self.radix else 1)

    def forbidden(self, allow_unknown: bool) -> tuple[int, ...]:
        """Ids never emitted. Where a vocabulary uses one id twice, eos stays allowed."""
        ids = {self.pad, self.bos} if allow_unknown else {self.pad, self.bos, self.unk}
        return tuple(sorted(ids - {self.eos}))


@dataclass(frozen=True)
class Allowed:
    """What may be said: not the `forbidden` ids, and no digit that goes on to no word."""

    forbidden: tuple[int, ...]
    special: SpecialIds

    def offers(self, wanted: int) -> int | None:
        """How many words to ask a captioner for, so that `wanted` of them are allowed where there are so many."""
        return None if self.special.radix else wanted + len(self.forbidden)

    def checked(self, log_probs: Floats, ids: Ints, said: Ints, image: Ints) -> Floats:
        """Copy of `log_probs` (rows, k) with -inf for what may not follow `said` (rows, step). `image` is each row's.

        Raises TrainingError where a row has no finite log-probability to go on with, or holds NaN or values above 0,
        and ValueError where the captioner breaks the shapes of its protocol.
        """
        step = said.shape[1]
        log_probs = _sound(log_probs, ids, image, step)
        for word in self.forbidden:
            log_probs[ids == word] = -np.inf
        if radix := self.special.radix:
            begun = said[:, step - step % radix.digits :]  # all words are as long, so all rows are at the same place
            log_probs[radix.impossible(begun, ids, self.special.unk)] = -np.inf
        stuck = (log_probs == -np.inf).all(axis=1)
        if stuck.any():
            raise TrainingError(
                f"the captioner offers no word {step + 1} for image {image[stuck.argmax()]} "
                "of the batch: all that is allowed has probability 0"
            )
        return log_probs


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}, must be at least 1")


def check_length(name: str, tokens: int) -> None:
    """ConfigError unless a caption can be that many tokens long; `name` is that of the option."""
    if not 1 <= tokens <= MOST_TOKENS:
        raise ConfigError(f"{name} is {tokens}, must be from 1 to {MOST_TOKENS}")


def tokens_at_most(words: int, digits: int) -> int:
    """Of a caption of so many words, each of so many digits. ConfigError where they are more than a search keeps."""
    if words * digits > MOST_TOKENS:
        raise ConfigError(
            f"max_length is {words}, and each word is spelled by {digits} digits: give at most {MOST_TOKENS // digits}"
        )
    return words * digits


@dataclass(frozen=True)
class Decoding:
    """How to search for a caption.

    Attributes:
        beam: how many captions the search keeps at a time; 1 is greedy search.
        max_length: words of a caption at most; the limit is 500.
        length_penalty: the log-probability of a caption is divided by its length to this power before captions are
            compared; 0, the published setting, favours short ones, 1 compares the mean over the words.
        allow_unknown: lets the captioner say <unk>, the unknown word.
    """

    beam: int = 3
    max_length: int = 20
    length_penalty: float = 0.0
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        _at_least_one(beam=self.beam)
        check_length("max_length", self.max_length)
        if self.beam > MOST_BEAMS:
            raise ConfigError(f"beam is {self.beam}, must be at most {MOST_BEAMS}")
        if not 0 <= self.length_penalty <= 10:
            raise ConfigError(f"length_penalty is {self.length_penalty}, must be from 0 to 10")


@dataclass(frozen=True)
class Sampling:
    """How to draw `count` captions per image: from softmax(log p / temperature) at each step.

    `top_k` draws from the k most likely words only; None draws from the whole vocabulary.
    """

    count: int = 5
    temperature: float = 1.0
    top_k: int | None = None
    max_length: int = 20
    allow_unknown: bool = False

    def __post_init__(self) -> None:
        top_k = 1 if self.top_k is None else self.top_k
        _at_least_one(count=self.count, top_k=top_k)
        check_length("max_length", self.max_length)
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature is {self.temperature}, must be above 0; decode with beam 1 for 0")


def decode(
    captioner: Captioner[State],
    images: Sized,
    decoding: Decoding,
    special: SpecialIds,
) -> list[list[Hypothesis]]:
    """Captions of each image, best first: greedy where `beam` is 1, else beam search.

    `images` is whatever the captioner's `start` takes, one entry per image. Raises TrainingError
    where the captioner gives numbers that are no log-probabilities.
    """
    search = greedy if decoding.beam == 1 else beam_search
    return search(captioner, images, decoding, special)


def greedy(
    captioner: Captioner[State],
    images: Sized,
    decoding: Decoding,
    special: SpecialIds,
) -> list[list[Hypothesis]]:
    """The likeliest word at every step, one hypothesis per image: beam search of beam 1, cheaper.

    `decoding.beam` is not used.
    """
    if len(images) == 0:
        return []
    allowed = Allowed(special.forbidden(decoding.allow_unknown), special)
    beams = Beams.empty(len(images), 1, special.tokens_at_most(decoding.max_length))
    _roll_out(captioner, captioner.start(images), beams, lambda p: p.argmax(axis=1), allowed.offers(1), allowed)
    normalised = beams.scores / beams.lengths**decoding.length_penalty
    return beams._replace(scores=normalised).hypotheses(special.eos)


def sample(
    captioner: Captioner[State],
    images: Sized,
    sampling: Sampling,
    rng: np.random.Generator,
    special: SpecialIds,
) -> list[list[Hypothesis]]:
    """`sampling.count` independent captions of each image, in the order drawn.

    Scores and log-probabilities are the model's own, before temperature, `top_k` and forbidden
    words reshape the distribution. Raises as `decode` does.
    """
    if len(images) == 0:
        return []
    allowed = Allowed(special.forbidden(sampling.allow_unknown), special)
    k = None if sampling.top_k is None else allowed.offers(sampling.top_k)

    def draw(log_probs: Floats) -> Any:
        tempered = log_probs.astype(np.float64) / sampling.temperature
        if sampling.top_k is not None and sampling.top_k < tempered.shape[1]:
            order = np.argsort(-log_probs, axis=1, kind="stable")
            np.put_along_axis(tempered, order[:, sampling.top_k :], -np.inf, axis=1)
        summed = np.exp(tempered - tempered.max(axis=1, keepdims=True)).cumsum(axis=1)
        # The first sum above the threshold is that of a word of positive probability.
        return (summed > rng.random((len(summed), 1)) * summed[:, -1:]).argmax(axis=1)

    beams = Beams.empty(len(images), sampling.count, special.tokens_at_most(sampling.max_length))
    rows = np.repeat(np.arange(len(images)), sampling.count)
    state = captioner.select(captioner.start(images), rows)
    _roll_out(captioner, state, beams, draw, k, allowed)
    return beams.hypotheses(special.eos)


def beam_search(
    captioner: Captioner[State],
    images: Sized,
    decoding: Decoding,
    special: SpecialIds,
) -> list[list[Hypothesis]]:
    """Up to `beam` hypotheses of each image, best first; fewer where the vocabulary is that small.

    Each step extends every live hypothesis by every word and takes the `beam` best. Those that end
    in eos are stored and leave; the next step refills the beam from extensions of the others. After
    `max_length` steps the others are stored too, unfinished. The result is the best of all stored,
    and of equals the one stored first. An image is closed as soon as no live hypothesis can get
    into that result; this saves steps and never changes it.
    """
    if len(images) == 0:
        return []
    n, beam, max_length = len(images), decoding.beam, special.tokens_at_most(decoding.max_length)
    allowed = Allowed(special.forbidden(decoding.allow_unknown), special)
    results: list[list[Hypothesis]] = [[] for _ in range(n)]
    image: Ints = np.arange(n)  # the image each entry of stored and live belongs to
    stored, live = Beams.empty(n, beam, max_length), Beams.empty(n, beam, max_length)
    live.scores[:, 0] = 0.0  # one empty hypothesis; the first step fills the beam from its words
    alive, tokens = live.scores > -np.inf, np.full(n, special.bos)
    state = captioner.start(images)
    for step in range(max_length):
        log_probs, ids, state = captioner.step(state, tokens, allowed.offers(beam))
        log_probs = allowed.checked(log_probs, ids, live.tokens[alive][:, :step], image[alive.nonzero()[0]])
        live, rows = live.extended(log_probs, ids, step)
        ended = (live.tokens[:, :, step] == special.eos) | (step + 1 == max_length)
        stored = stored.merged(live.where(ended, (step + 1) ** decoding.length_penalty))
        live = live.where(~ended)
        # Log-probabilities are at most 0: a hypothesis only gets worse by growing, and the largest
        # divisor it can hope for is that of the greatest length. A tie goes to the one stored.
        hope = live.scores.max(axis=1) / max_length**decoding.length_penalty
        going = hope > stored.scores[:, -1]
        for i, found in zip(image[~going], stored.at(~going).hypotheses(special.eos), strict=True):
            results[i] = found
        if not going.any():
            break
        image, live, stored = image[going], live.at(going), stored.at(going)
        alive = live.scores > -np.inf
        tokens = live.tokens[:, :, step][alive]
        state = captioner.select(state, rows[going][alive])
    return results


def _roll_out(
    captioner: Captioner[State],
    state: State,
    beams: Beams,
    choose: Callable[[Floats], Any],
    k: int | None,
    allowed: Allowed,
) -> None:
    """Fill every slot of `beams` by one word at a time, the column that `choose` picks.

    `state` has one row per slot, in order; rows that emitted eos leave it.
    """
    n, m, max_length = beams.tokens.shape
    scores, lengths = beams.scores.reshape(n * m), beams.lengths.reshape(n * m)
    tokens, costs = beams.tokens.reshape(n * m, -1), beams.log_probs.reshape(n * m, -1)
    scores[:] = 0.0
    slot: Ints = np.arange(n * m)  # of each row
    words = np.full(n * m, allowed.special.bos)
    for step in range(max_length):
        log_probs, ids, state = captioner.step(state, words, k)
        log_probs = allowed.checked(log_probs, ids, tokens[slot, :step], slot // m)
        chosen = np.arange(len(slot)), choose(log_probs)
        words = ids[chosen]
        tokens[slot, step], costs[slot, step] = words, log_probs[chosen]
        scores[slot] += log_probs[chosen]
        lengths[slot] = step + 1
        going = words != allowed.special.eos
        if not going.any():
            break
        if not going.all():
            slot, words = slot[going], words[going]
            state = captioner.select(state, going.nonzero()[0])


def _sound(log_probs: Floats, ids: Ints, image: Ints, step: int) -> Floats:
    """Copy of `log_probs` without what is a little above 0; errors as of `Allowed.checked`."""
    if log_probs.ndim != 2 or log_probs.shape != ids.shape or len(ids) != len(image):
        raise ValueError(
            f"captioner.step gave log-probabilities {log_probs.shape} and ids {ids.shape} for {len(image)} rows"
        )
    # Rounding may lift log 1 a little above 0; more than that is no log-probability. NaN is not
    # below anything, so it is caught here too.
    sound = (log_probs <= 1e-3).all(axis=1)
    if not sound.all():
        row = int(sound.argmin())
        worst = log_probs[row].max()
        kind = "NaN" if np.isnan(worst) else f"log-probability {worst:.3g} (above 0)"
        raise TrainingError(
            f"the captioner gave {kind} for word {step + 1} of image {image[row]} of the batch; "
            "its weights or the image's features are damaged, or its training diverged"
        )
    return np.minimum(log_probs, 0)
