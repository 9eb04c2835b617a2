"""The verbs around a packed file: `inspect`, `unpack` and `diff` it, `caption` with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.cli.arguments import JsonTarget, model_file, open_captioner, say
from laconic.cli.console import (
    STDOUT,
    check_target,
    comparison_lines,
    comparison_table,
    console_for,
    inspection_table,
    other_sizes,
    size_line,
    write_json,
)
from laconic.cli.pack import source_file
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError

if TYPE_CHECKING:
    from laconic.captioner.image_captioner import ImageCaptioner
    from laconic.data import Example
    from laconic.data.regions import Regions

REGION_FILES = (".npy", ".npz", ".safetensors")  # of one image, the last of many
IMAGES = 32  # whose regions are captioned at once
Named = Iterator[tuple[str, str]]  # of images and their captions


@dataclass(frozen=True)
class Unpack:
    """Writes the weights of a packed file as an ordinary safetensors file: dense, float32."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed file, or the folder of a finished run."""
    out: Annotated[Path, arg(aliases=("-o",), metavar="OUT")]
    """The file to write; configuration and vocabulary become JSON in its metadata."""


def unpack(options: Unpack) -> None:
    """Writes the file and says how large it is."""
    source = source_file(options.file, options.out)
    from laconic import store

    print(f"{options.out}: {store.unpack(source, options.out):,} bytes")


@dataclass(frozen=True)
class Inspect:
    """Shows what a packed file holds, what each tensor costs, and how far that is above its entropy bound."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed file, or the folder of a finished run."""
    json: JsonTarget = None
    """Write it here; - for standard output, which then holds nothing else."""


def inspect(options: Inspect) -> None:
    """Prints the table of tensors."""
    from laconic import store

    check_target(options.json, "--json")
    inspection = store.inspect(model_file(options.file), gzip=True)
    console = console_for(options.json)
    console.print(inspection_table(inspection))
    for line in (size_line(inspection), *other_sizes(inspection)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    write_json(inspection.as_dict(), options.json)


@dataclass(frozen=True)
class Diff:
    """Shows what differs between two packed files. Exit code 1 where something does."""

    first: Annotated[Path, Positional, arg(metavar="A")]
    """A packed file, or the folder of a finished run."""
    second: Annotated[Path, Positional, arg(metavar="B")]
    """Another one."""
    json: JsonTarget = None
    """Write it here; - for standard output, which then holds nothing else."""


def diff(options: Diff) -> int:
    """Prints the tensors that changed."""
    from laconic import store

    check_target(options.json, "--json")
    comparison = store.compare(model_file(options.first), model_file(options.second))
    console = console_for(options.json)
    if comparison.only_first or comparison.only_second or comparison.changed:
        console.print(comparison_table(comparison))
    for line in comparison_lines(comparison):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    write_json(comparison.as_dict(), options.json)
    return 0 if comparison.same else 1


@dataclass(frozen=True)
class Caption:
    """Captions photos, or region features with a captioner that reads those."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, or the folder of a finished run."""
    images: Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGE...")]
    """Image files, or .npy and .npz files of region features (n, channels), or folders of them; or a file of many
    images' regions, as laconic.data.regions.write_regions writes it."""
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
        if path.exists() and not path.is_dir() and (path.suffix in REGION_FILES) != reads_regions:
            reads = f"region features ({', '.join(REGION_FILES)})" if reads_regions else "photos"
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
    from laconic.training.evaluation import caption_images

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
            found, skipped = data.list_images(path) if path.is_dir() else ([data.Example(str(path), path)], ())
            examples += found
            problems += [file.reason for file in skipped]
        except DataError as error:
            problems.append(str(error))
    return examples


def _caption_regions(
    captioner: "ImageCaptioner", paths: Sequence[Path], decoding: Decoding, problems: list[str]
) -> Named:
    from laconic.data.regions import batches

    for some in batches(_named_regions(paths, captioner, problems), IMAGES):
        names, regions = zip(*some, strict=True)
        yield from zip(names, captioner.caption(regions, decoding), strict=True)


def _named_regions(
    paths: Sequence[Path], captioner: "ImageCaptioner", problems: list[str]
) -> "Iterator[tuple[str, Regions]]":
    """Files as they are named and those of folders; what cannot be read is told in `problems`."""
    from laconic.data.regions import NO_BOXES, region_readers

    for given in paths:
        try:
            found = list(region_readers(given, captioner.config.encoder.channels))
        except DataError as error:
            problems.append(str(error))
            continue
        for name, read in found:
            try:
                regions = read()
                if captioner.needs_boxes and regions.boxes is None:
                    raise DataError(f"{name}: has no boxes, and this captioner reads where regions lie; {NO_BOXES}")
                yield name, regions
            except DataError as error:
                problems.append(str(error))
