"""The verb `caption`: photos, or region features, each in a line as soon as it has its caption."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.captioner.loading import Backend
from laconic.captioner.ready_made import SMALLEST
from laconic.cli.arguments import open_captioner
from laconic.cli.documents import lines_with_bar, write_json
from laconic.cli.messages import say
from laconic.cli.paths import STDOUT, CaptionsJson, FolderCaptions, OptionalPath, Overwrite, Paths
from laconic.errors import ConfigError, DataError
from laconic.spec.manifest import MODEL, RECIPE, RESULT

if TYPE_CHECKING:
    from laconic.captioner.captioning import AnyCaptioner
    from laconic.data import Example
    from laconic.data.regions import Regions
    from laconic.decode.search import Decoding

    Readers = list[tuple[str, Callable[[], Regions]]]  # names, and what reads each

REGION_FILES = (".npy", ".npz", ".safetensors")  # of one image, the last of many
IMAGES = 32  # whose regions are captioned at once
Cluster = Literal["none", "ray"]
Captioned = Iterator[tuple[int, str, str]]  # how many images are behind, name of one, its caption


@dataclass(frozen=True)
class Caption:
    """Captions photos, or region features with a captioner that reads those."""

    file: Annotated[OptionalPath, Positional, arg(metavar="[FILE]")] = None
    """A packed captioner, or the folder of a finished run. Where the first word is a photo, or a folder of photos, the
    captioner that comes with laconic captions it (docs/READY_MADE.md)."""
    images: Annotated[Paths, Positional, arg(metavar="IMAGE...")] = ()
    """Photos, or folders of photos. For a captioner that reads region features: .npy or .npz files of them (regions x
    channels), folders of these, or one .safetensors file of many images' regions (docs/DATA.md)."""
    folder: OptionalPath = None
    """Instead of IMAGE: a folder of any number of photos, or of tar files of them. What is stopped goes on where it
    was. The same command given several times, on machines that share the files, shares the work (docs/FOLDERS.md)."""
    out: FolderCaptions = None
    """Of --folder: a .jsonl or .csv file of captions, or a .json file of COCO results. What was skipped, and why, is
    written to OUT.skipped.csv."""
    keep_parts: FlagCreatePairsOff[bool] = False
    """Of --folder: keep OUT.parts, the state of the work, when it is finished."""
    cluster: Cluster = "none"
    """Of --folder: "ray" works on all processors of a Ray cluster."""
    beam: int = 3
    """How many captions the search keeps at a time; 1 is greedy search."""
    max_length: int = 20
    """Words of a caption at most."""
    length_penalty: float = 0.0
    """Divide the log-probability of a caption by its length to this power before captions are compared; 0 favours
    short ones."""
    allow_unknown: FlagCreatePairsOff[bool] = False
    """Let the captioner say <unk>, the unknown word, where it finds it likeliest."""
    backend: Backend = "engine"
    """What runs the captioner: engine, which needs no PyTorch, or torch, to compare."""
    threads: int = 0
    """Processor threads; 0 for all. Captions do not depend on it."""
    json: CaptionsJson = None
    """Write [{"image": .., "caption": ..}, ..] to this file; - for standard output, which then holds nothing else."""
    overwrite: Overwrite = False


def caption(options: Caption) -> int:
    """One line per image; unreadable ones are reported, and fail the command only where there is no other.

    Where it is stopped, or fails half-way, the captions so far are written all the same.
    """
    from laconic.decode.search import Decoding

    decoding = Decoding(options.beam, options.max_length, options.length_penalty, options.allow_unknown)
    file, images = _told_apart(options.file, options.images)
    if options.folder is not None:
        return _folder(options, file, images, options.folder, decoding)
    if options.out is not None or options.keep_parts or options.cluster != "none":
        raise ConfigError("--out, --keep-parts and --cluster go with --folder DIR; for named images there is --json")
    if not images:
        raise ConfigError("no image given; name image files, or folders of them")
    if file != options.file:  # nobody has named it, or a folder was taken for one of photos
        say(f"captioned by {file}, which comes with laconic")
    captioner = open_captioner(file, options.backend, options.threads)
    reads_regions = bool(captioner.region_channels)
    for path in images:
        if path.exists() and not path.is_dir() and (path.suffix in REGION_FILES) != reads_regions:
            reads = f"region features ({', '.join(REGION_FILES)})" if reads_regions else "photos"
            raise ConfigError(f"{path}: {file} captions {reads}, which this is not")
    problems: list[str] = []
    of, captioned = (_regions if reads_regions else _photos)(captioner, images, decoding, problems)
    rows: list[dict[str, str]] = []
    try:
        with lines_with_bar("captioning", of, shown=options.json != STDOUT) as show:
            for done, name, text in captioned:
                rows.append({"image": name, "caption": text})
                show(done, f"{name}: {text}")
    except BaseException as error:
        if rows:
            write_json(rows, options.json)
        if not isinstance(error, KeyboardInterrupt):
            raise
        kept = f"; {options.json} holds their captions" if rows and options.json not in (None, STDOUT) else ""
        say(f"stopped after {len(rows):,} of {of:,} images{kept}")
        return 128 + signal.SIGINT
    for problem in problems:
        say(problem)
    write_json(rows, options.json)
    return 0 if rows else 2


def _told_apart(first: Path | None, others: Sequence[Path]) -> tuple[Path, Sequence[Path]]:
    """Captioner and images: the first word is either, as its name tells, or its content if its name is no image's."""
    from laconic.data.formats import EXTENSIONS, HEAD, is_image

    if first is None:
        return Path(SMALLEST), others
    if first.is_dir():
        photos = not any((first / name).exists() for name in (MODEL, RECIPE, RESULT))
    elif first.suffix.lower() in EXTENSIONS or not first.is_file():
        photos = first.suffix.lower() in EXTENSIONS
    else:
        with first.open("rb") as file:
            photos = is_image(file.read(HEAD))
    return (Path(SMALLEST), (first, *others)) if photos else (first, others)


# Folders of any size


def _folder(options: Caption, file: Path, images: Sequence[Path], folder: Path, decoding: "Decoding") -> int:
    if images or options.json is not None:
        raise ConfigError("--folder takes no IMAGE and no --json; captions go to --out OUT")
    if options.out is None:
        raise ConfigError("--folder needs --out OUT, a .jsonl, .csv or .json file for the captions")
    from laconic.cli.folder import caption_folder

    return caption_folder(
        file,
        folder,
        options.out,
        decoding,
        overwrite=options.overwrite,
        keep=options.keep_parts,
        cluster=options.cluster,
    )


# Photos


def _photos(
    captioner: "AnyCaptioner", paths: Sequence[Path], decoding: "Decoding", problems: list[str]
) -> tuple[int, Captioned]:
    """How many there are: files as they are named and the images of folders; and their captions."""
    from laconic import data

    examples: list[Example] = []
    for path in paths:
        try:
            found, skipped = data.list_images(path) if path.is_dir() else ([data.Example(str(path), path)], ())
            examples += found
            problems += [file.reason for file in skipped]
        except DataError as error:
            problems.append(str(error))
    return len(examples), _caption_photos(captioner, examples, decoding, problems)


def _caption_photos(
    captioner: "AnyCaptioner", examples: "list[Example]", decoding: "Decoding", problems: list[str]
) -> Captioned:
    from laconic.captioner.captioning import caption_images
    from laconic.data import Skipped

    skipped: list[Skipped] = []
    for index, text in caption_images(captioner, examples, decoding, skipped):
        yield index + 1, examples[index].name, text
    problems += [image.reason for image in skipped]


# Regions


def _regions(
    captioner: "AnyCaptioner", paths: Sequence[Path], decoding: "Decoding", problems: list[str]
) -> tuple[int, Captioned]:
    """As `_photos`."""
    from laconic.data.regions import region_readers

    found: Readers = []
    for path in paths:
        try:
            found += region_readers(path, captioner.region_channels)
        except DataError as error:
            problems.append(str(error))
    return len(found), _caption_regions(captioner, found, decoding, problems)


def _caption_regions(
    captioner: "AnyCaptioner", found: "Readers", decoding: "Decoding", problems: list[str]
) -> Captioned:
    from laconic.data.regions import batches

    for some in batches(_readable(captioner, found, problems), IMAGES):
        keys, regions = zip(*some, strict=True)
        for (behind, name), text in zip(keys, captioner.caption(regions, decoding), strict=True):
            yield behind, name, text


def _readable(
    captioner: "AnyCaptioner", found: "Readers", problems: list[str]
) -> "Iterator[tuple[tuple[int, str], Regions]]":
    """How many are behind and the name, and the regions, of those that can be read; of the others `problems` tells."""
    from laconic.data.regions import NO_BOXES

    for behind, (name, read) in enumerate(found, 1):
        try:
            regions = read()
            if captioner.needs_boxes and regions.boxes is None:
                raise DataError(f"{name}: has no boxes, and this captioner reads where regions lie; {NO_BOXES}")
            yield (behind, name), regions
        except DataError as error:
            problems.append(str(error))
