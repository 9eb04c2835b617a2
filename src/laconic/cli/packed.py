"""The verbs around a packed file: `pack` a run into one, `inspect` it, `caption` photos or region features with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.cli.arguments import JsonTarget, model_file, open_captioner, say
from laconic.console import STDOUT, check_target, console_for, inspection_table, size_line, write_json
from laconic.decode import Decoding
from laconic.errors import ConfigError, DataError

if TYPE_CHECKING:
    from laconic.captioner import ImageCaptioner
    from laconic.data import Example
    from laconic.data.regions import Regions

IMAGES = 32  # whose regions are captioned at once
Named = Iterator[tuple[str, str]]  # of images and their captions


@dataclass(frozen=True)
class Pack:
    """Packs a trained captioner, encoder and vocabulary included, into one small safetensors file."""

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """The folder of a finished run, or a packed captioner."""
    out: Annotated[Path, arg(aliases=("-o",), metavar="FILE")]
    """The file to write."""
    values: Literal["half", "exact"] = "half"
    """Precision of the weights: half (float16) or exact (float32)."""


def pack(options: Pack) -> None:
    """Writes the file and says how small it is."""
    source = model_file(options.run)
    check_target(options.out, "-o")
    if options.out.exists() and source.exists() and options.out.samefile(source):
        raise ConfigError(f"-o {options.out}: is the file to pack; give another name")
    from laconic import store
    from laconic.captioner import load, save

    captioner = load(source)
    facts = store.load(source).config.get("facts")
    save(captioner, options.out, options.values, **(facts if isinstance(facts, dict) else {}))
    print(size_line(store.inspect(options.out)))


@dataclass(frozen=True)
class Inspect:
    """Shows what a packed file holds and what each tensor costs; no weight is read."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed file, or the folder of a finished run."""
    json: JsonTarget = None
    """Write it here; - for standard output, which then holds nothing else."""


def inspect(options: Inspect) -> None:
    """Prints the table of tensors."""
    from laconic import store

    check_target(options.json, "--json")
    inspection = store.inspect(model_file(options.file))
    console = console_for(options.json)
    console.print(inspection_table(inspection))
    console.print(size_line(inspection), markup=False, highlight=False, soft_wrap=True)
    write_json(inspection.as_dict(), options.json)


@dataclass(frozen=True)
class Caption:
    """Captions photos, or region features with a captioner that reads those."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, or the folder of a finished run."""
    images: Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGE...")]
    """Image files, or .npy files of region features (n, channels); or folders of them."""
    beam: int = 3
    """Beams of the search; 1 is greedy."""
    max_length: int = 20
    """Words of a caption at most."""
    length_penalty: float = 0.0
    """Beams are ranked by log-probability / length ** this."""
    allow_unknown: FlagCreatePairsOff[bool] = False
    """Lets <unk> be said; a converted captioner shows it."""
    json: JsonTarget = None
    """Write [{"image": .., "caption": ..}, ..] here; - for standard output, which then holds nothing else."""


def caption(options: Caption) -> int:
    """One line per image; unreadable ones are reported, and fail the command only where there is no other."""
    decoding = Decoding(options.beam, options.max_length, options.length_penalty, options.allow_unknown)
    if not options.images:
        raise ConfigError("no image given; name image files, or folders of them")
    check_target(options.json, "--json")
    captioner = open_captioner(options.file)
    reads_regions = captioner.config.encoder.name == "regions"
    for path in options.images:
        if not path.is_dir() and (path.suffix == ".npy") != reads_regions:
            reads = "region features (.npy)" if reads_regions else "photos"
            raise ConfigError(f"{path}: {options.file} captions {reads}, which this is not")
    problems: list[str] = []
    named = _caption_regions if reads_regions else _caption_photos
    rows: list[dict[str, str]] = []
    for name, text in named(captioner, options.images, decoding, problems):
        rows.append({"image": name, "caption": text})
        if options.json != STDOUT:
            print(f"{name}: {text}", flush=True)
    for problem in problems:
        say(problem)
    write_json(rows, options.json)
    return 0 if rows else 2


def _caption_photos(
    captioner: "ImageCaptioner", paths: Sequence[Path], decoding: Decoding, problems: list[str]
) -> Named:
    from laconic.data import Skipped
    from laconic.evaluation import caption_images

    examples = _named_images(paths, problems)
    skipped: list[Skipped] = []
    for index, text in caption_images(captioner, examples, decoding, skipped):
        yield examples[index].name, text
    problems += [image.reason for image in skipped]


def _named_images(paths: Sequence[Path], problems: list[str]) -> "list[Example]":
    """Files as they are named and the images of folders."""
    from laconic import data

    examples: list[Example] = []
    for path in paths:
        try:
            found = data.load("folder", path) if path.is_dir() else [data.Example(str(path), path)]
            examples += [found[index] for index in range(len(found))]
        except DataError as error:
            problems.append(str(error))
    return examples


def _caption_regions(
    captioner: "ImageCaptioner", paths: Sequence[Path], decoding: Decoding, problems: list[str]
) -> Named:
    found = _named_regions(paths, captioner.config.encoder.channels, problems)
    while some := list(islice(found, IMAGES)):
        names, regions = zip(*some, strict=True)
        yield from zip(names, captioner.caption(regions, decoding), strict=True)


def _named_regions(paths: Sequence[Path], channels: int, problems: list[str]) -> "Iterator[tuple[str, Regions]]":
    """Files as they are named and those of folders; what cannot be read is told in `problems`."""
    from laconic.data.regions import boxes_beside, read_regions

    for given in paths:
        files = sorted(given.glob("*.npy")) if given.is_dir() else [given]
        if not files:
            problems.append(f"{given}: holds no region features (.npy)")
        for path in files:
            try:
                yield str(path), read_regions(path, channels, boxes_beside(path))
            except DataError as error:
                problems.append(str(error))
