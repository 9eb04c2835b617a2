"""Which options are paths, which of these a verb writes, and what earlier outputs of each look like.

Every option that is a file to write has one of the types of this module; `overwriting` checks them.
"""

import json
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

from tyro.conf import FlagCreatePairsOff, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from laconic.spec.manifest import CAPTIONS, COMPRESSED, GATES, MODEL, RECIPE, STUDY

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
