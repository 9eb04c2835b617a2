"""The verbs that score: `evaluate` a captioner on a data set, `score` a file of captions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from laconic.captioner.loading import Backend
from laconic.cli.arguments import open_captioner, with_types
from laconic.cli.console import console_for, list_skipped, scores_table
from laconic.cli.documents import write_json
from laconic.cli.messages import say
from laconic.cli.paths import DataPath, EvaluationJson, Overwrite, ResultsJson, ScoresJson
from laconic.cli.progress import watching
from laconic.config import expand
from laconic.errors import ConfigError, DataError

if TYPE_CHECKING:
    from laconic.captioner.captioning import AnyCaptioner
    from laconic.data import Dataset
    from laconic.data.regions import RegionStore
    from laconic.metrics import Scores

MISSING = 2  # exit code, as of other things that are not installed


@dataclass(frozen=True)
class Evaluate:
    """Captions a data set and scores the captions against its references."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, the folder of a finished run, or a Hugging Face folder of a BLIP that captions."""
    data: str = "flickr8k"
    """The data set. "captions" and "folder" are for your own, with captions and without; docs/DATA.md."""
    root: Annotated[DataPath, arg(metavar="DIR")] = ""
    """Folder of the data set; may use ~ and environment variables."""
    regions: Annotated[DataPath, arg(metavar="PATH")] = ""
    """Folder or file of the images' region features, for a captioner that reads those."""
    split: str = "val"
    """Part of the data set to caption: train, val (validation) or test."""
    tokens: Literal["auto", "always", "never"] = "auto"
    """Whether captions are made of the data set's own tokens, separated by spaces: always, never (they are the
    sentences as written), or auto, where those put no spaces between words (Chinese, Thai ...)."""
    beam: int = 3
    """How many captions the search keeps at a time; 1 is greedy search."""
    max_length: int = 20
    """Words of a caption at most."""
    length_penalty: float = 0.0
    """Divide the log-probability of a caption by its length to this power before captions are compared; 0 favours
    short ones."""
    backend: Backend = "engine"
    """What runs the captioner: engine, which needs no PyTorch, or torch, to compare."""
    threads: int = 0
    """Processor threads; 0 for all. Captions do not depend on it."""
    limit: int = 0
    """How many images to use, from the first; 0 for all."""
    metrics: tuple[str, ...] = ()
    """Metrics to compute beside BLEU, ROUGE-L and CIDEr. METEOR and SPICE need Java and `pip install '.[metrics]'`.
    Exit code 2 where one cannot be computed."""
    captions: ResultsJson = None
    """Write the captions to this file, as COCO results: [{"image_id": .., "caption": ..}, ..]."""
    json: EvaluationJson = None
    """Write the scores to this file as JSON; - for standard output, which then holds nothing else."""
    overwrite: Overwrite = False


def evaluate_options() -> type:
    from laconic.data import DATASETS

    return with_types(Evaluate, data=Literal[tuple(DATASETS)], metrics=_further_metrics())


def _further_metrics() -> Any:
    from laconic.metrics import METRICS, STANDARD

    further: Any = Literal[tuple(name for name in METRICS if name not in STANDARD)]
    return tuple[further, ...]


def evaluate(options: Evaluate) -> int:
    """Scores, what scores do not show, and the images that could not be read."""
    from laconic.decode.search import Decoding

    decoding = Decoding(options.beam, options.max_length, options.length_penalty)
    from laconic.captioner.captioning import evaluate as run_evaluation
    from laconic.metrics import STANDARD

    captioner = open_captioner(options.file, options.backend, options.threads)
    regions = _regions(options, captioner)
    examples, root = _examples(options)
    console = console_for(options.json)
    with watching(console) as watch:
        scores, captions, skipped = run_evaluation(
            captioner,
            examples,
            decoding,
            regions=regions,
            names=(*STANDARD, *options.metrics),
            progress=lambda done, of: watch.stage("captioning", done, of),
        )
    from laconic.metrics import caption_quality

    quality = caption_quality(list(captions.values()), _training_captions(options, root))
    console.print(scores_table(scores, scores.unavailable, quality))
    list_skipped(console, [image.reason for image in skipped])
    rows = [{"image_id": image, "caption": caption} for image, caption in captions.items()]
    write_json(rows, options.captions)
    document = {
        "file": str(options.file),
        "data": options.data,
        "split": options.split,
        "decoding": asdict(decoding),
        "scores": dict(scores),
        "unavailable": scores.unavailable,
        "quality": asdict(quality),
        "skipped": [asdict(image) for image in skipped],
    }
    write_json(document, options.json)
    return _said_missing(scores, options.metrics)


def _regions(options: Evaluate, captioner: "AnyCaptioner") -> "RegionStore | None":
    from laconic.data.regions import open_regions

    channels = captioner.region_channels
    if bool(channels) != bool(options.regions):
        reads = "region features: give --regions" if channels else "photos: leave --regions out"
        raise ConfigError(f"{options.file}: reads {reads}")
    if not options.regions:
        return None
    return open_regions(expand(options.regions), channels, captioner.needs_boxes)


def _examples(options: Evaluate) -> "tuple[Dataset, Path | None]":
    from laconic import data

    if options.limit < 0:
        raise ConfigError(f"--limit {options.limit}: give 0 for all, or at least 1")
    root = expand(options.root) if options.root else None
    photos: data.Photos = "none" if options.regions else "some"
    examples = data.load(options.data, root, options.split, photos=photos, **_asked(options))
    count = min(options.limit or len(examples), len(examples))
    return [examples[index] for index in range(count)], root


def _asked(options: Evaluate) -> dict[str, str]:
    """What a data set without tokens refuses to be asked for."""
    return {} if options.tokens == "auto" else {"tokens": options.tokens}


def _training_captions(options: Evaluate, root: Path | None) -> set[str] | None:
    """What a captioner trained on this data set may have copied; None where there is no such split."""
    from laconic import data

    try:
        examples = data.load(options.data, root, "train", photos="none", **_asked(options))
    except DataError:
        return None
    return {caption for index in range(len(examples)) for caption in examples[index].captions}


@dataclass(frozen=True)
class Score:
    """Scores captions that any captioner wrote."""

    references: Annotated[Path, arg(metavar="REFS")]
    """Reference captions: COCO's annotations, {"annotations": [{"image_id": .., "caption": ..}, ..]}; a dataset_*.json
    in Karpathy's format; or a text file, such as Flickr8k's captions.txt."""
    results: Annotated[Path, arg(metavar="RES.json")]
    """The captions to score, as COCO results: [{"image_id": .., "caption": ..}, ..]."""
    split: str = ""
    """Part of the references to score against, where the file has several: train, val or test; all by default."""
    tokens: Literal["auto", "always", "never"] = "auto"
    """Whether the references are made of the tokens of a dataset_*.json, separated by spaces: always, never (they are
    its sentences as written), or auto, where those put no spaces between words (Chinese, Thai ...)."""
    metrics: tuple[str, ...] = ()
    """Metrics to compute beside BLEU, ROUGE-L and CIDEr. METEOR and SPICE need Java and `pip install '.[metrics]'`.
    Exit code 2 where one cannot be computed."""
    json: ScoresJson = None
    """Write the scores to this file as JSON; - for standard output, which then holds nothing else."""
    overwrite: Overwrite = False


def score_options() -> type:
    return with_types(Score, metrics=_further_metrics())


def score(options: Score) -> int:
    """Scores a result file."""
    from laconic import metrics
    from laconic.data.references import load_references
    from laconic.text import unspaced

    references = load_references(options.references, options.split, options.tokens)
    results = metrics.load_results(options.results)
    wanted = (*metrics.STANDARD, *options.metrics)
    scores = metrics.evaluate(references, results, metrics=wanted, subset=True)
    console_for(options.json).print(scores_table(scores, scores.unavailable))
    if unspaced(caption for captions in references.values() for caption in captions):
        say("the references have no spaces between words, so scores count a whole sentence as one word")
    if len(results) < len(references):
        say(
            f"{len(results):,} of {len(references):,} images with references have a result; "
            "CIDEr weighs words by these alone, so compare it only with scores on the same images"
        )
    missing = {"unavailable": scores.unavailable} if scores.unavailable else {}
    write_json({**scores, **missing}, options.json)
    return _said_missing(scores, options.metrics)


def _said_missing(scores: "Scores", asked: Sequence[str]) -> int:
    """The exit code: not 0 where a metric that was asked for could not be computed. Says which are missing."""
    missing = [name for name in asked if name in scores.unavailable]
    if missing:
        say(f"not computed: {', '.join(missing)}; the other scores are complete")
    return MISSING if missing else 0
