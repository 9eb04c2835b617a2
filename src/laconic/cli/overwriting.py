"""What may be written over: said before a verb begins.

A verb writes over nothing that it reads, and over nothing that is not recognisably an earlier output of the same option
unless `--overwrite` says so. `check_paths` is called for every verb; which options are paths their types tell, see
`paths`.
"""

import dataclasses
import os
import stat
import typing
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from laconic.cli.paths import EMPTY, STDOUT, Output, ReadPath
from laconic.config import expand
from laconic.errors import ConfigError
from laconic.machine.files import replaceable
from laconic.spec.manifest import MODEL, OF_RUN, RECIPE

_POSITIONAL = typing.get_args(typing.cast(Any, Positional)[int])[1]  # what marks such an option


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
        kind = "is not empty" if output.folder else "is there already"
        raise ConfigError(f"{option} {path}: {kind} and is no {output.what}; give another path{insist}")
