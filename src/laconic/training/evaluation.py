"""From a captioner and a cached data set to captions and scores: for validation, and for the end of a recipe.

Without a cache, laconic.captioner.captioning does it. Knows nothing of training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from laconic import metrics
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.data import Dataset
from laconic.decode.search import Decoding
from laconic.errors import DataError
from laconic.training.batches import Source

BATCH = 64


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
