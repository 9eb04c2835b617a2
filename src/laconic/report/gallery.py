"""Photos with what the dense and the pruned captioners say of them: a page, and a list in Markdown (Fig. 6).

Photos are taken at even distances from the validation set, never picked by their captions. Knows no scores beyond
those it shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from laconic import data
from laconic.config import expand
from laconic.data import Dataset, Example, read_image
from laconic.errors import DataError
from laconic.report.methods import learned_masks, method_name
from laconic.report.page import Contender, Layer, Picture, Story, captions_page, write_page
from laconic.report.runs import FinishedRun
from laconic.report.tables import percent

PHOTOS, LISTED = 24, 8
SIDE = 640  # pixels that are read of a photo


@dataclass(frozen=True)
class Source:
    """The data set of some runs: validation examples by id, and the captions that were learned from."""

    examples: Mapping[int | str, Example]
    training: tuple[str, ...]


def open_source(run: FinishedRun) -> Source:
    """The images and captions that a run used. Raises DataError or ConfigError where they are not there."""
    settings = run.recipe["data"]
    root = expand(settings["root"]) if settings["root"] else None
    train, val = (_first(data.load(settings["name"], root, s, photos="none"), settings[s]) for s in ("train", "val"))
    learned = tuple(caption for example in train for caption in example.captions)
    return Source({example.id: example for example in val}, learned)


def _first(examples: Dataset, count: int) -> list[Example]:
    return [examples[i] for i in range(min(count or len(examples), len(examples)))]


def evenly(ids: Sequence[int | str], count: int) -> list[int | str]:
    """At most `count` of the ids at even distances."""
    return [ids[i * len(ids) // count] for i in range(count)] if len(ids) > count else list(ids)


def markdown_gallery(runs: Sequence[FinishedRun], source: Source | None) -> str:
    """What each run says of a few photos, with a reference caption where the data is there."""
    captions = {run.name: run.captions or {} for run in runs}
    shared = [id_ for id_ in captions[runs[0].name] if all(id_ in some for some in captions.values())]
    lines = []
    for id_ in evenly(shared, LISTED):
        example = source.examples.get(id_) if source is not None else None
        name = Path(example.name).name if example is not None else str(id_)
        lines.append(f"**{name}**\n")
        if example is not None and example.captions:
            lines.append(f"- *reference*: {example.captions[0]}")
        lines += [f"- {run.name}: {captions[run.name][id_]}" for run in runs]
        lines.append("")
    return "\n".join(lines)


def write_gallery(dense: FinishedRun, pruned: FinishedRun, source: Source, path: Path) -> None:
    """A page of two runs, photos inside. Raises DataError where no photo can be read."""
    captions = dense.captions or {}, pruned.captions or {}
    shared = [id_ for id_ in captions[0] if id_ in captions[1] and id_ in source.examples]
    pictures = []
    for id_ in evenly(shared, PHOTOS):
        example = source.examples[id_]
        try:
            pixels = read_image(example.image, SIDE) if isinstance(example.image, Path) else example.pixels()
        except DataError:
            continue
        reference = example.captions[0] if example.captions else ""
        pictures.append(Picture(example.name, pixels, captions[0][id_], captions[1][id_], reference))
    if not pictures:
        raise DataError("no photo of the validation set can be read")
    layers = [
        Layer(t.name.removesuffix(".weight"), t.weights, t.non_zeros)
        for t in pruned.matrices
        if t.name.split(".")[0] in pruned.parts
    ]
    opening = (
        f"Two captioners of the same kind learned from the same photos. One kept every weight; of the other, "
        f"{method_name(pruned)} removed {percent(pruned.sparsity)} of those of its {' and '.join(pruned.parts)}. "
        "The photos are taken from the validation set at even distances."
    )
    commands = (f"laconic inspect {pruned.model}", f"laconic caption {pruned.model} photo.jpg")
    story = Story(opening, commands, learned=learned_masks(pruned))
    page = captions_page(contender(dense), contender(pruned), layers, pictures, story)
    write_page(page, path)


def contender(run: FinishedRun) -> Contender:
    """A run as the page shows it."""
    return Contender(
        run.name,
        cider=run.cider,
        bleu4=float(run.result["scores"]["Bleu_4"]),
        weights=run.weights(),
        non_zeros=run.non_zeros(),
        file_bytes=int(run.result["bytes"]),
        loss=run.loss,
        sparsity=run.curve("sparsity"),
        validation=run.curve("CIDEr"),
    )
