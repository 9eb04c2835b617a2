"""Runs a plan in numpy: slower than the native library, with the same interface and, up to rounding, the same numbers.

For machines without a compiler, and the reference that the native operations are tested against. Each operation is a
function of the work at hand and its arguments by name, in the table OPERATIONS; the search is that of laconic.decode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, SpecialIds, decode
from laconic.errors import FormatError
from laconic.radix import ZERO, Radix
from laconic.runtime import numpy_decoders, numpy_encoders
from laconic.runtime.inputs import Inputs
from laconic.runtime.numpy_work import Work
from laconic.runtime.operations import PROGRAMS, SPACES
from laconic.runtime.plan import Plan

OPERATIONS: dict[str, Callable[..., None]] = {**numpy_encoders.OPERATIONS, **numpy_decoders.OPERATIONS}

# What numpy says of tables that are not there, do not fit each other, or would be too large.
DAMAGE = (LookupError, ValueError, TypeError, ArithmeticError, AssertionError, MemoryError)


@dataclass(frozen=True)
class State:
    """Of a search: what buffers keep of each caption in the making, by buffer, (rows, captions); `words` that of
    WORDS buffers, (captions, words, rows). `memory` are the tables of the images."""

    memory: Work
    image_of: NDArray[np.int64]
    kept: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    words: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    word: int = 0


class NumpyPath:
    """A plan that numpy runs: a Captioner of laconic.decode.

    Nothing is checked beforehand: damage that is met on the way is a FormatError that names the plan.
    """

    def __init__(self, plan: Plan, name: str = "plan") -> None:
        self.plan, self.name = plan, name
        with self._naming_the_plan():
            self._programs = {program: plan.program(program) for program in PROGRAMS}

    def search(self, images: Inputs, decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first."""
        h = self.plan.header
        radix = Radix(int(h["words"]) - ZERO, int(h["vocabulary"]) - ZERO) if h["words"] else None
        special = SpecialIds(int(h["pad"]), int(h["unk"]), int(h["bos"]), int(h["eos"]), radix)
        with self._naming_the_plan():
            return decode(self, images, decoding, special)

    def features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Grid (positions, channels) and pooled (channels,) of one image (side, side, 3); None where none is read."""
        work, h = Work(self.plan, images=1), self.plan.header
        with self._naming_the_plan():
            self._encode(work, Inputs(pixels=pixels[None]))
            grid = work.table(int(h["grid"]))[: h["channels"]].T.copy()
            return grid, work.table(int(h["pooled"]))[: h["pooled_channels"], 0] if self.plan.reads_pooled else None

    # The Captioner protocol of laconic.decode.search

    def start(self, images: Inputs) -> State:
        """One row per image."""
        work = Work(self.plan, images=len(images))
        for image in range(len(images)):
            work = replace(work, image=image)
            self._encode(work, images.part(image, image + 1))
            self._run("image", work)
        self._run("images", work)
        kept = [i for i, b in enumerate(self.plan.buffers) if SPACES[b["space"]] == "ROWS" and b["kept"]]
        rows = {i: np.zeros((int(self.plan.buffers[i]["rows"]), len(images)), np.float32) for i in kept}
        return State(work, np.arange(len(images)), rows)

    def step(
        self, state: State, tokens: NDArray[np.int64], k: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], State]:
        """The k best next words of each row: log-probabilities, ids, new state."""
        work = replace(
            state.memory, tokens=tokens, image_of=state.image_of, word=state.word, words=dict(state.words),
            tables={**state.memory.tables, **{(i, None): table.copy() for i, table in state.kept.items()}},
        )  # fmt: skip
        self._run("step", work)
        logits = work.table(int(self.plan.header["logits"])).T
        kept = {i: work.table(i) for i in state.kept}
        return *_best_words(logits, k), replace(state, kept=kept, words=work.words, word=state.word + 1)

    def select(self, state: State, rows: NDArray[np.int64]) -> State:
        """Repeats, drops or reorders rows."""
        return replace(
            state,
            image_of=state.image_of[rows],
            kept={i: table[:, rows] for i, table in state.kept.items()},
            words={i: table[rows] for i, table in state.words.items()},
        )

    def _encode(self, work: Work, image: Inputs) -> None:
        work.inputs = image
        if image.pixels is not None:
            self._run("encode", work)
            return
        assert image.features is not None
        work.set_positions(len(image.features))
        channels = int(self.plan.header["channels"])
        work.table(int(self.plan.header["grid"]))[:channels] = image.features.T
        if self.plan.reads_pooled:
            work.table(int(self.plan.header["pooled"]))[:channels, work.image] = image.features.mean(0)

    @contextmanager
    def _naming_the_plan(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise FormatError(
                f"{self.name}: the plan is damaged, or reads other images ({error}); make it again"
            ) from error

    def _run(self, program: str, work: Work) -> None:
        for operation, arguments in self._programs[program]:
            OPERATIONS[operation](work, **arguments)


def _best_words(logits: NDArray[np.float32], k: int | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As laconic.models.torch_captioner.best_words."""
    high = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        log_probs = (logits - high) - np.log(np.exp(logits - high).sum(axis=1, keepdims=True))
    if k is None:
        return log_probs, np.broadcast_to(np.arange(logits.shape[1]), logits.shape)
    best = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(log_probs, best, 1), best
