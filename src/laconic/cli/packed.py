"""The verbs around a packed file: `pack` a run into one, `inspect` it, `caption` photos with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from laconic.cli.arguments import JsonTarget, model_file, open_captioner, say
from laconic.console import STDOUT, check_target, console_for, inspection_table, size_line, write_json
from laconic.decode import Decoding
from laconic.errors import ConfigError, DataError

if TYPE_CHECKING:
    from laconic.data import Example


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
    """Captions photos."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """A packed captioner, or the folder of a finished run."""
    images: Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGE...")]
    """Image files, or folders of them."""
    beam: int = 3
    """Beams of the search; 1 is greedy."""
    max_length: int = 20
    """Words of a caption at most."""
    length_penalty: float = 0.0
    """Beams are ranked by log-probability / length ** this."""
    json: JsonTarget = None
    """Write [{"image": .., "caption": ..}, ..] here; - for standard output, which then holds nothing else."""


def caption(options: Caption) -> int:
    """One line per image; unreadable ones are reported, and fail the command only where there is no other."""
    decoding = Decoding(options.beam, options.max_length, options.length_penalty)
    if not options.images:
        raise ConfigError("no image given; name image files, or folders of them")
    check_target(options.json, "--json")
    from laconic.data import Skipped
    from laconic.evaluation import caption_images

    captioner = open_captioner(options.file)
    examples, problems = _named_images(options.images)
    skipped: list[Skipped] = []
    rows: list[dict[str, str]] = []
    for index, text in caption_images(captioner, examples, decoding, skipped):
        rows.append({"image": examples[index].name, "caption": text})
        if options.json != STDOUT:
            print(f"{examples[index].name}: {text}", flush=True)
    for problem in [*problems, *(image.reason for image in skipped)]:
        say(problem)
    write_json(rows, options.json)
    return 0 if rows else 2


def _named_images(paths: Sequence[Path]) -> "tuple[list[Example], list[str]]":
    """Files as they are named and the images of folders; and what is wrong with folders."""
    from laconic import data

    examples: list[Example] = []
    problems: list[str] = []
    for path in paths:
        try:
            found = data.load("folder", path) if path.is_dir() else [data.Example(str(path), path)]
            examples += [found[index] for index in range(len(found))]
        except DataError as error:
            problems.append(str(error))
    return examples, problems
