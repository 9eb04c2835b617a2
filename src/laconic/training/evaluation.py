"""From a captioner and a data set to captions and scores.

Used by validation during training, by the end of a recipe and by the command line. Knows nothing of training.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from laconic import metrics
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.data import Dataset, Skipped, readable
from laconic.decode.search import Decoding
from laconic.errors import DataError
from laconic.training.batches import Source

BATCH = 64
IMAGES = 32  # read and captioned at once


def caption_rows(
    captioner: ImageCaptioner,
    source: Source,
    rows: np.ndarray,
    decoding: Decoding,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The best caption of each row of a feature or pixel cache."""
    device = next(captioner.parameters()).device
    captions: list[str] = []
    for start in range(0, len(rows), BATCH):
        inputs = source.batch(rows[start : start + BATCH]).to(device)
        found = captioner.search(inputs, decoding)
        captions += [captioner.vocabulary.decode(best[0].tokens) for best in found]
        if progress:
            progress(len(captions), len(rows))
    return captions


@dataclass(frozen=True)
class Validator:
    """Scores a model in training by CIDEr, on captions found as those that will be reported: of two models with the
    same likelihoods, beam search can prefer the one and greedy search the other. References are prepared once."""

    source: Source
    rows: np.ndarray
    scorer: metrics.CiderD
    decoding: Decoding

    @classmethod
    def of(cls, source: Source, examples: Dataset, decoding: Decoding) -> "Validator":
        """Over all readable examples with captions."""
        rows = _captioned(source, examples)
        if not len(rows):
            raise DataError("no validation image is readable and has captions")
        tokenized = [metrics.tokenize(list(examples[int(row)].captions)) for row in rows]
        return cls(source, rows, metrics.CiderD(tokenized), decoding)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not isinstance(model, ImageCaptioner):
            raise TypeError("a Validator scores an ImageCaptioner")
        captions = metrics.tokenize(caption_rows(model, self.source, self.rows, self.decoding))
        return {"CIDEr": float(self.scorer.score(captions).mean())}


def evaluate(
    captioner: ImageCaptioner,
    source: Source,
    examples: Dataset,
    decoding: Decoding,
    *,
    names: Sequence[str] = metrics.STANDARD,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[metrics.Scores, dict[int | str, str]]:
    """All scores of a captioner on a data set, and its captions by image id."""
    rows = _captioned(source, examples)
    if not len(rows):
        raise DataError("no image is readable and has captions: there is nothing to score against")
    captions = caption_rows(captioner, source, rows, decoding, progress)
    ids = [examples[int(row)].id for row in rows]
    results = dict(zip(ids, captions, strict=True))
    references = {id_: list(examples[int(r)].captions) for id_, r in zip(ids, rows, strict=True)}
    return metrics.evaluate(references, results, metrics=names), results


def _captioned(source: Source, examples: Dataset) -> np.ndarray:
    """Rows of the images that are readable and have captions."""
    return np.array([i for i in np.flatnonzero(source.valid) if examples[int(i)].captions], int)


def caption_images(
    captioner: ImageCaptioner, examples: Dataset, decoding: Decoding, skipped: list[Skipped]
) -> Iterator[tuple[int, str]]:
    """(index, best caption) of every readable image, in order; the others are listed in `skipped`.

    Images are read a few at a time, so memory does not grow with the data set.
    """
    device = next(captioner.parameters()).device
    pictures = readable(examples, captioner.config.encoder.size, skipped)
    while some := list(islice(pictures, IMAGES)):
        pixels = torch.from_numpy(np.stack([image for _, image in some])).to(device)
        found = captioner.search(pixels, decoding)
        for (index, _), best in zip(some, found, strict=True):
            yield index, captioner.vocabulary.decode(best[0].tokens)


def evaluate_images(
    captioner: ImageCaptioner,
    examples: Dataset,
    decoding: Decoding,
    *,
    names: Sequence[str] = metrics.STANDARD,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[metrics.Scores, dict[int | str, str], list[Skipped]]:
    """`evaluate` without a cache: scores, captions by image id, and the images that could not be read."""
    captioned = [e for e in (examples[i] for i in range(len(examples))) if e.captions]
    if not captioned:
        raise DataError("no image has captions: there is nothing to score against")
    skipped: list[Skipped] = []
    results: dict[int | str, str] = {}
    for index, caption in caption_images(captioner, captioned, decoding, skipped):
        results[captioned[index].id] = caption
        if progress:
            progress(index + 1, len(captioned))
    if not results:
        raise DataError(f"none of {len(captioned)} images is readable; the first: {skipped[0].reason}")
    references = {e.id: list(e.captions) for e in captioned if e.id in results}
    return metrics.evaluate(references, results, metrics=names), results, skipped
