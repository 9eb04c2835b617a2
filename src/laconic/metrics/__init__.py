"""Caption metrics as coco-caption computes them, without Java where that is possible.

`evaluate` scores captions against references; METRICS lists what it can compute. The metrics
themselves (one a file) take captions that `tokenize` has turned into PTB tokens. Nothing here knows
models.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from laconic.errors import ConfigError, DataError, LaconicWarning, MissingError
from laconic.metrics.bleu import Bleu
from laconic.metrics.captions import (
    ImageId,
    References,
    Results,
    as_references,
    as_results,
    load_references,
    load_results,
)
from laconic.metrics.cider import CiderD, DocumentFrequency
from laconic.metrics.external import meteor, spice
from laconic.metrics.ptb import tokenize
from laconic.metrics.quality import CaptionQuality, caption_quality
from laconic.metrics.rouge import rouge_l

__all__ = [
    "METRICS",
    "STANDARD",
    "Bleu",
    "CaptionQuality",
    "CiderD",
    "DocumentFrequency",
    "Metric",
    "Scores",
    "caption_quality",
    "evaluate",
    "load_references",
    "load_results",
    "rouge_l",
    "tokenize",
]


class Scores(dict[str, float]):
    """Scores by name, an ordinary dictionary; `unavailable` says why a wanted one is missing."""

    def __init__(self, scores: dict[str, float], unavailable: dict[str, str]) -> None:
        super().__init__(scores)
        self.unavailable = unavailable


STANDARD = ("Bleu", "ROUGE_L", "CIDEr")  # those that need no Java


@dataclass(frozen=True)
class Metric:
    """One row of METRICS: the scores it gives, how, and the best score there is."""

    names: tuple[str, ...]
    score: Callable[[Sequence[Sequence[str]], Sequence[str]], Sequence[float]] = field(repr=False)
    best: float = 1.0


def evaluate(
    references: References,
    results: Results,
    *,
    metrics: Iterable[str] = STANDARD,
    subset: bool = False,
) -> Scores:
    """Score captions against references, as coco-caption does.

    `references` maps image id to its captions, or is a COCO annotation dictionary; `results` maps
    image id to one caption, or is a COCO result list. Captions are raw; both sides go through
    `tokenize`. `metrics` are keys of METRICS. A metric that is not installed is named in
    `Scores.unavailable`, with what to do, and has no score.

    Every image needs both. coco-caption's own driver also fails where a result is missing, unless
    told to look at the images of the result file only, as its published example does; `subset=True`
    is that. The CIDEr document frequencies then come from these images only, so the score is
    comparable only to scores on the same subset.

    Raises DataError for captions that cannot be scored and ConfigError for an unknown metric. Warns of a CIDEr that
    says nothing: it weighs a word by the share of images whose references lack it, so of a single image all weigh 0.
    """
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise ConfigError(f"unknown metric {name!r}; there are {', '.join(METRICS)}")
    reference, result = as_references(references), as_results(results)
    _match(reference, result, subset)
    groups = _tokenized([reference[image] for image in result])
    candidates = tokenize(result.values())
    scores: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for name in wanted:
        metric = METRICS[name]
        try:
            values = metric.score(groups, candidates)
        except MissingError as error:
            unavailable |= dict.fromkeys(metric.names, str(error))
        else:
            scores |= zip(metric.names, map(float, values), strict=True)
    if "CIDEr" in scores and len(candidates) == 1:
        warnings.warn(
            "CIDEr of a single image is 0 whatever its caption: it weighs words by how few images have them; "
            "score several images together",
            LaconicWarning,
            stacklevel=2,
        )
    return Scores(scores, unavailable)


def _match(reference: dict[ImageId, list[str]], result: dict[ImageId, str], subset: bool) -> None:
    unknown = [image for image in result if image not in reference]
    if unknown:
        raise DataError(
            f"{len(unknown)} results have no references, the first for image {unknown[0]!r} "
            f"(an image with references is {next(iter(reference))!r}); check that both are of the "
            "same split and write image ids alike"
        )
    absent = [image for image in reference if image not in result]
    if absent and not subset:
        raise DataError(
            f"{len(absent)} images have references but no result, the first is {absent[0]!r}; "
            "add their captions, or score the images with a result alone (subset)"
        )


def _tokenized(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    tokens = iter(tokenize(caption for group in groups for caption in group))
    return [[next(tokens) for _ in group] for group in groups]


METRICS: dict[str, Metric] = {
    "CIDEr": Metric(("CIDEr",), lambda refs, caps: (CiderD(refs).score(caps).mean(),), best=10.0),
    "Bleu": Metric(("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"), lambda refs, caps: Bleu(refs).corpus(caps)),
    "ROUGE_L": Metric(("ROUGE_L",), lambda refs, caps: (rouge_l(refs, caps).mean(),)),
    "METEOR": Metric(("METEOR",), lambda refs, caps: (meteor(refs, caps),)),
    "SPICE": Metric(("SPICE",), lambda refs, caps: (spice(refs, caps),)),
}
