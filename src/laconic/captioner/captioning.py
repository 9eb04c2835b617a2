"""A captioner over a data set: captions image by image, and their scores. Needs no torch.

Serves whatever captions: the engine, or the PyTorch captioner. Images are read a few at a time, so memory does not grow
with the data set.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from laconic.captioner.inputs import Image
from laconic.data.examples import Dataset, Skipped, readable
from laconic.data.regions import Regions, RegionStore
from laconic.decode.search import Decoding
from laconic.errors import DataError

if TYPE_CHECKING:
    from laconic import metrics

IMAGES = 32  # read and captioned at once


class AnyCaptioner(Protocol):
    """What captions: laconic.captioner.engine.Engine, ImageCaptioner, or a model of Hugging Face (laconic.hf)."""

    @property
    def side(self) -> int: ...

    @property
    def region_channels(self) -> int: ...

    @property
    def needs_boxes(self) -> bool: ...

    def caption(self, images: Iterable[Image], decoding: Decoding | None = None, batch: int = ...) -> list[str]: ...


def caption_images(
    captioner: AnyCaptioner, examples: Dataset, decoding: Decoding, skipped: list[Skipped]
) -> Iterator[tuple[int, str]]:
    """(index, best caption) of every readable image, in order; the others are listed in `skipped`."""
    return _in_groups(captioner, readable(examples, captioner.side, skipped), decoding)


def caption_regions(
    captioner: AnyCaptioner, examples: Dataset, regions: RegionStore, decoding: Decoding, skipped: list[Skipped]
) -> Iterator[tuple[int, str]]:
    """As `caption_images`, of examples whose region features lie in `regions`."""
    return _in_groups(captioner, _found(examples, regions, skipped), decoding)


def evaluate(
    captioner: AnyCaptioner,
    examples: Dataset,
    decoding: Decoding,
    *,
    regions: RegionStore | None = None,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "tuple[metrics.Scores, dict[int | str, str], list[Skipped]]":
    """All scores of a captioner on a data set, its captions by image id, and the images that could not be read.

    Raises DataError where nothing is left to score.
    """
    captioned = [e for e in (examples[i] for i in range(len(examples))) if e.captions]
    if not captioned:
        raise DataError("no image has captions: there is nothing to score against")
    skipped: list[Skipped] = []
    if regions is None:
        found = caption_images(captioner, captioned, decoding, skipped)
    else:
        found = caption_regions(captioner, captioned, regions, decoding, skipped)
    results: dict[int | str, str] = {}
    for index, caption in found:
        results[captioned[index].id] = caption
        if progress:
            progress(index + 1, len(captioned))
    if not results:
        raise DataError(f"none of {len(captioned)} images is readable; the first: {skipped[0].reason}")
    references = {e.id: list(e.captions) for e in captioned if e.id in results}
    from laconic import metrics  # here, since captioning alone has no use for it

    scores = metrics.evaluate(references, results, metrics=metrics.STANDARD if names is None else names)
    return scores, results, skipped


def _in_groups(
    captioner: AnyCaptioner, images: Iterable[tuple[int, Image]], decoding: Decoding
) -> Iterator[tuple[int, str]]:
    remaining = iter(images)
    while some := list(islice(remaining, IMAGES)):
        indices, group = zip(*some, strict=True)
        yield from zip(indices, captioner.caption(group, decoding), strict=True)


def _found(examples: Dataset, regions: RegionStore, skipped: list[Skipped]) -> Iterator[tuple[int, Regions]]:
    for index in range(len(examples)):
        image = examples[index].id
        try:
            if image not in regions:
                raise DataError(f"{image}: no region features")
            yield index, regions[image]
        except DataError as error:
            skipped.append(Skipped(str(image), str(error)))
