"""Sequence-level knowledge distillation (Kim and Rush 2016, arXiv 1606.07947): captions that a teacher writes.

The student learns the teacher's beam search itself, of which a single word's probabilities tell little. What it has to
learn becomes simpler, too, which helps small models most. Knows nothing of the training loop: the captions join those
of the data set.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from laconic.captioner.ensemble import Ensemble
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import FormatError
from laconic.metrics.rewards import Rewards
from laconic.text import Vocabulary
from laconic.training.batches import Source
from laconic.training.evaluation import BATCH
from laconic.training.settings import Choice

Captions = Sequence[Sequence[str]]


def written_by(
    teacher: ImageCaptioner | Ensemble,
    source: Source,
    captions: Captions,
    decoding: Decoding,
    *,
    count: int,
    choice: Choice,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[str, ...]]:
    """The teacher's captions of each row of a source; none for images that are unreadable or have no captions.

    Args:
        teacher: in evaluation mode.
        captions: of the data set, by row.
        decoding: its beam is at least `count`.
        count: of captions for each image; an image gets fewer where the search finds fewer.
        choice: which ones of the beam; see laconic.training.settings.Distillation.
        progress: called with (images done, images).
    """
    rows = [row for row in map(int, np.flatnonzero(source.valid)) if captions[row]]
    device = next(teacher.parameters()).device
    pick = _nearest(captions, rows, teacher.vocabulary) if choice == "nearest" else _best
    written: list[tuple[str, ...]] = [()] * len(captions)
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        inputs = source.batch(np.array(some)).to(device)
        for row, found in zip(some, teacher.search(inputs, decoding), strict=True):
            chosen = pick(row, found)[:count]
            written[row] = tuple(teacher.vocabulary.decode(each.tokens) for each in chosen)
        if progress:
            progress(start + len(some), len(rows))
    return written


def read_captions(path: Path, origin: str) -> list[tuple[str, ...]] | None:
    """What `written_by` gave, from the JSON file of a run; None where that has captions of another origin: of other
    teachers, or written in another way. FormatError where it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
        if found["origin"] != origin:
            return None
        return [tuple(map(str, captions)) for captions in found["captions"]]
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        told = f"{type(error).__name__}: {error}"
        raise FormatError(f"{path}: cannot be read ({told}); delete it and go on with --resume") from None


Pick = Callable[[int, list[Hypothesis]], list[Hypothesis]]


def _best(_: int, found: list[Hypothesis]) -> list[Hypothesis]:
    return found


def _nearest(captions: Captions, rows: Sequence[int], vocabulary: Vocabulary) -> Pick:
    """Those nearest to what people wrote, by sentence BLEU-4 (the paper's "interpolation")."""
    references = [[vocabulary.numbers(caption) for caption in captions[row]] for row in rows]
    rewards = Rewards(references, cider=0.0, bleu=1.0)
    place = {row: index for index, row in enumerate(rows)}

    def pick(row: int, found: list[Hypothesis]) -> list[Hypothesis]:
        near = rewards([vocabulary.read(each.tokens) for each in found], [place[row]] * len(found))
        return [found[index] for index in np.argsort(-near, kind="stable")]

    return pick
