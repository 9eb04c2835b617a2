"""Which options are paths, which of these a verb writes, and what may be written over.

A verb writes over nothing that it reads, and over nothing that is not recognisably an earlier output of the same option
unless `--overwrite` says so. Every option that is a file to write has one of the types of this module, and
`check_paths` is called for every verb before it begins.
"""

import dataclasses
import json
import os
import stat
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Optional

from tyro.conf import FlagCreatePairsOff, Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from laconic.config import expand
from laconic.errors import ConfigError
from laconic.machine.files import replaceable
from laconic.spec.manifest import CAPTIONS, COMPRESSED, GATES, MODEL, OF_RUN, RECIPE, STUDY

STDOUT = Path("-")  # where JSON goes to standard output
EMPTY = "\0"  # stands for an empty word, which a Path would take for the current folder; no word can hold it
MAX_JSON = 64 * 2**20  # bytes of a file that is looked at, to tell whether it is an earlier output
MAX_HEADER = 4 * 2**20


@dataclass(frozen=True)
class Output:
    """Marks an option as a path that is written.

    Attributes:
        what: an earlier output, in words.
        own: whether a path holds one.
        folder: it is a folder.
        stream: "-" stands for standard output, and a pipe or a device will do.
    """

    what: str
    own: Callable[[Path], bool]
    folder: bool = False
    stream: bool = False


class ReadPath:
    """Marks a text option as a path that is read, written as in a recipe: with ~ and environment variables."""


# What earlier outputs look like


def _json_with(*keys: str) -> Callable[[Path], bool]:
    """Whether a file is JSON: an object with these keys, or a list of such objects; one without content counts too."""

    def own(path: Path) -> bool:
        if path.stat().st_size > MAX_JSON:
            return False
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return False
        first = found[0] if isinstance(found, list) and found else found
        return found in ([], {}) or (isinstance(first, dict) and all(key in first for key in keys))

    return own


def _begins(start: bytes) -> Callable[[Path], bool]:
    """Whether a file begins so."""

    def own(path: Path) -> bool:
        with open(path, "rb") as file:
            return file.read(len(start)) == start

    return own


def _safetensors_with(*keys: str, format: str, without: str = "") -> Callable[[Path], bool]:  # noqa: A002
    """Whether a file is a safetensors file whose metadata have these keys, this "format" and not the key `without`."""

    def own(path: Path) -> bool:
        try:
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                metadata = json.loads(file.read(length))["__metadata__"] if length <= MAX_HEADER else {}
            return metadata["format"] == format and without not in metadata and all(key in metadata for key in keys)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return False

    return own


def _begins_with(path: Path, begins: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(begins)) == begins


def _folder_with(mark: str, begins: bytes, *written: str) -> Callable[[Path], bool]:
    """Whether none of the files that are written is in a folder, or its file `mark` begins as it is written."""

    def own(path: Path) -> bool:
        if (path / mark).is_file():
            return _begins_with(path / mark, begins)
        return not any(os.path.lexists(path / name) for name in written)

    return own


def _export(path: Path) -> bool:
    from laconic.export.table import is_export  # for this verb alone

    return is_export(path)


def _captions_of_folder(path: Path) -> bool:
    """Whether a file begins as one of laconic.bulk.merge does, in any of its formats."""
    with open(path, "rb") as file:
        head = file.read(64)
    return head.startswith((b'{"image": "', b"image,caption\n", b'[\n{"image_id": ', b"[\n]"))


def _json_output(what: str, *keys: str) -> Any:
    return Output(f"JSON of {what}", _json_with(*keys), stream=True)


# Types of options


_OPTIONAL_PATH: PrimitiveConstructorSpec[Path | None] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=lambda words: Path(words[0] or EMPTY),
    is_instance=lambda value: value is None or isinstance(value, Path),
    str_from_instance=lambda value: [str(value)],
)
_PATH_TEXT: PrimitiveConstructorSpec[str] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=lambda words: words[0] or EMPTY,
    is_instance=lambda value: isinstance(value, str),
    str_from_instance=lambda value: [value],
)
_PATHS: PrimitiveConstructorSpec[tuple[Path, ...]] = PrimitiveConstructorSpec(
    nargs="*",
    metavar="PATH...",
    instance_from_str=lambda words: tuple(Path(word or EMPTY) for word in words),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: [str(path) for path in value],
)
REGISTRY = ConstructorRegistry()  # how words become values; tyro's own rules for the rest


@REGISTRY.primitive_rule
def _path_rule(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path | None] | None:
    return _OPTIONAL_PATH if kind.type is Path else None


# tyro imports typeguard, a quarter of the start of `inspect`, to understand `Path | None` or `tuple[Path, ...]`.
if typing.TYPE_CHECKING:
    Paths = tuple[Path, ...]
else:
    Paths = Annotated[tuple, _PATHS]
_TO_JSON = Annotated[Optional[Path], _OPTIONAL_PATH, arg(metavar="OUT")]  # noqa: UP045
OptionalPath = Annotated[Optional[Path], _OPTIONAL_PATH]  # noqa: UP045
InspectionJson = Annotated[_TO_JSON, _json_output("`laconic inspect`", "file_bytes", "tensors")]
ComparisonJson = Annotated[_TO_JSON, _json_output("`laconic diff`", "changed", "same")]
BenchJson = Annotated[_TO_JSON, _json_output("`laconic bench`", "rows", "verdict")]
BenchCsv = Annotated[
    Optional[Path],  # noqa: UP045
    _OPTIONAL_PATH,
    Output("CSV of `laconic bench`", _begins(b"way,seconds_per_image,")),
    arg(metavar="OUT"),
]
CaptionsJson = Annotated[_TO_JSON, _json_output("`laconic caption`", "image", "caption")]
ScoresJson = Annotated[_TO_JSON, _json_output("`laconic score`", "Bleu_1", "CIDEr")]
EvaluationJson = Annotated[_TO_JSON, _json_output("`laconic evaluate`", "scores", "decoding")]
ResultsJson = Annotated[_TO_JSON, _json_output("captions as COCO results", "image_id", "caption")]
FolderCaptions = Annotated[
    Optional[Path],  # noqa: UP045
    _OPTIONAL_PATH,
    Output("file of `laconic caption --folder`", _captions_of_folder),
    arg(aliases=("-o",), metavar="OUT"),
]
PackedFile = Annotated[
    Path,
    Output("packed file", _safetensors_with(format="laconic", without="kind")),
    arg(aliases=("-o",), metavar="FILE"),
]
DenseFile = Annotated[
    Path,
    Output("file of `laconic unpack`", _safetensors_with("config", "provenance", format="pt")),
    arg(aliases=("-o",), metavar="OUT"),
]
ModelFolder = Annotated[
    Path,
    Output("folder of a model", _folder_with("config.json", b"{", "model.safetensors"), folder=True),
    arg(aliases=("-o",), metavar="DIR"),
]
PlanFile = Annotated[
    Path,
    Output("plan", lambda path: _begins_with(path, b"LACOPLAN")),
    arg(aliases=("-o",), metavar="FILE"),
]
ReportFolder = Annotated[
    Path,
    Output(
        "folder of a report", _folder_with("README.md", b"# Report\n", "README.md", "runs.csv", "slim.csv"), folder=True
    ),
    arg(aliases=("-o",), metavar="DIR"),
]
RunFolder = Annotated[
    Path | None,
    Output("folder of a run", _folder_with(RECIPE, b"{", MODEL, CAPTIONS, GATES), folder=True),
    arg(aliases=("-o",), metavar="DIR"),
]
StudyFolder = Annotated[
    Path | None,
    Output("folder of a study", _folder_with(STUDY, b'{\n "command"', STUDY), folder=True),
    arg(aliases=("-o",), metavar="DIR"),
]
CompressFolder = Annotated[
    Path | None,
    Output("folder of a compression", _folder_with(COMPRESSED, b"{", MODEL, COMPRESSED), folder=True),
    arg(aliases=("-o",), metavar="DIR"),
]
ExportFolder = Annotated[
    Path,
    Output("export", _export, folder=True),
]
DemoFolder = Annotated[
    Path,
    Output(
        "folder of a demo",
        _folder_with("dense/recipe.json", b"{", "index.html", "demo.json", "dense.safetensors", "pruned.safetensors"),
        folder=True,
    ),
]
DataPath = Annotated[str, _PATH_TEXT, ReadPath()]  # "" where it is not given
Overwrite = Annotated[
    FlagCreatePairsOff[bool], arg(help="Write even over a file that is not an earlier output of this command.")
]


_POSITIONAL = typing.get_args(typing.cast(Any, Positional)[int])[1]  # what marks such an option


# The check


def check_paths(options: Any) -> None:
    """Said before the work instead of after it: ConfigError for an empty path, and where a verb would write over what
    it reads, twice into one file, over another kind of file without `overwrite`, or where it cannot write."""
    read, written = _paths(options)
    for index, (option, path, output) in enumerate(written):
        if path == STDOUT and not output.folder:
            if not output.stream:
                raise ConfigError(f"{option} -: is standard output, which takes JSON alone; give the name of a file")
        elif output.folder:
            _check_folder(option, path)
        else:
            _check_file(option, path, output.stream)
        for other, earlier, _ in written[:index]:
            if _same(path, earlier):
                raise ConfigError(f"{option} {path}: is what {other} writes; give another path")
        if path == STDOUT or not replaceable(path):
            continue
        if not output.folder and any(_same(path, given) for given in read):
            raise ConfigError(f"{option} {path}: is the file to read; give another path")
        if not getattr(options, "overwrite", False):
            _check_kind(options, option, path, output)


def writes(options: Any) -> bool:
    """Whether a verb leaves something besides what it shows."""
    folders = any(
        output is not None and output.folder for _, _, output in _fields(options)
    )  # chosen by the verb where none is given
    return folders or any(path != STDOUT for _, path, _ in _paths(options)[1])


def _paths(options: Any) -> tuple[list[Path], list[tuple[str, Path, Output]]]:
    """Paths that are read, and options that are written."""
    read: list[Path] = []
    written: list[tuple[str, Path, Output]] = []
    for field, marks, output in _fields(options):
        value = getattr(options, field.name)
        if value in (EMPTY, Path(EMPTY)) or (isinstance(value, tuple) and Path(EMPTY) in value):
            raise ConfigError(f"{field.name}: '' is no path; give the name of a file or folder")
        if output is None:
            read += _read_paths(value, marks)
        elif value is not None:
            written.append((_as_given(field.name, marks), value, output))
    return read, written


def _as_given(name: str, marks: tuple[Any, ...]) -> str:
    """How an option is called on the command line."""
    if _POSITIONAL in marks:
        return next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), name)
    return "-o" if name == "out" else f"--{name}"


def _fields(options: Any) -> Iterator[tuple["dataclasses.Field[Any]", tuple[Any, ...], Output | None]]:
    """Each option, what its type is marked with, and the mark of what is written."""
    hints = typing.get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        marks = getattr(hints[field.name], "__metadata__", ())
        yield field, marks, next((mark for mark in marks if isinstance(mark, Output)), None)


def _read_paths(value: Any, marks: tuple[Any, ...]) -> Iterator[Path]:
    if isinstance(value, str) and value and any(isinstance(mark, ReadPath) for mark in marks):
        value = expand(value)
    for path in value if isinstance(value, tuple) else (value,):
        if isinstance(path, Path):
            yield path
            yield path / MODEL  # what a run's folder stands for


def _same(first: Path, second: Path) -> bool:
    """Whether both are one file, however it is named; one that is not there yet goes by its name."""
    if STDOUT in (first, second):
        return first == second
    try:
        return first.samefile(second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def _check_folder(option: str, path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{option} {path}: is a file; give the path of a folder")


def _check_file(option: str, path: Path, streams: bool) -> None:
    """`streams`: it may be a pipe or a device."""
    try:
        is_old = path.exists()  # of a link, what it leads to
        if path.is_dir():
            raise ConfigError(f"{option} {path}: is a folder; give the path of a file")
        if is_old and (stat.S_ISSOCK(path.stat().st_mode) or not (streams or replaceable(path))):
            raise ConfigError(f"{option} {path}: is no regular file; give the path of one")
        if is_old and not os.access(path, os.W_OK):
            raise ConfigError(f"{option} {path}: no permission to write it; give another path")
        folder = Path(os.path.realpath(path)).parent
        if not is_old and not folder.is_dir():
            raise ConfigError(f"{option} {path}: no folder {path.parent}; make it first")
        if replaceable(path) and not os.access(folder, os.W_OK):
            raise ConfigError(f"{option} {path}: no permission to write there; give another path")
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be written ({error.strerror}); give another path") from None


def _check_kind(options: Any, option: str, path: Path, output: Output) -> None:
    insist = ", or --overwrite" if hasattr(options, "overwrite") else ""
    of_run = any(fnmatch(path.name, pattern) for pattern in OF_RUN) and (path.parent / RECIPE).exists()
    if of_run and not output.folder:
        raise ConfigError(f"{option} {path}: belongs to the run in that folder; give another path{insist}")
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    try:
        own = output.own(path)
    except OSError:
        own = False
    if not own:
        kind = "holds files of the same names" if output.folder else "is there already"
        raise ConfigError(f"{option} {path}: {kind} and is no {output.what}; give another path{insist}")
