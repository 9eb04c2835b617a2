"""The table of what a captioner is exported to, and the one function that writes any of it.

A target is a module of this package with a function `write(packed, folder, options)`, which fills an empty folder and
says in lines what there is to know about it, and where that takes packages that others do not, with `prepare()`, which
imports them, before there is a folder that somebody who stops it would leave.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from laconic import store
from laconic.errors import ConfigError, printable
from laconic.machine.folders import folder_atomically
from laconic.runtime.values import Width

MANIFEST = "export.json"  # says which target a folder is for, and how large its files are
BEGINS = b'{\n "laconic_export"'
Goal = Literal["web", "onnx", "c"]


@dataclass(frozen=True)
class Options:
    """How a captioner is exported; None is what the target does by itself.

    Attributes:
        width: how weights lie in a plan, see laconic.runtime.planning.make_plan.
        beam: captions that the search keeps at a time where nobody says otherwise.
        max_length: words of a caption at most, likewise.
        int8: write files with weights of 8 bits, too.
    """

    width: Width | None = None
    beam: int | None = None
    max_length: int | None = None
    int8: bool = False


@dataclass(frozen=True)
class Target:
    """A row: the module that writes it, and which of the Options it takes."""

    module: str
    takes: tuple[str, ...]


TARGETS: Mapping[Goal, Target] = {
    "web": Target("laconic.export.web", ("width", "beam", "max_length")),
    "onnx": Target("laconic.export.onnx", ("max_length", "int8")),
    "c": Target("laconic.export.application", ("width",)),
}


def export(file: Path, folder: Path, to: Goal, options: Options | None = None) -> list[str]:
    """Writes a packed captioner into a folder, whole or not at all; lines that say what is in it.

    Raises:
        ConfigError: the folder holds something else, or an option is none of the target's.
        FormatError: the file is damaged or holds no captioner.
        MissingError: a package that the target needs is not installed.
    """
    options = options or Options()
    target = TARGETS[to]
    for field in fields(options):
        if getattr(options, field.name) != field.default and field.name not in target.takes:
            raise ConfigError(
                f"--{field.name.replace('_', '-')} is not for --to {to}, which takes "
                f"{', '.join('--' + name.replace('_', '-') for name in target.takes)}; leave it out"
            )
    if not is_export(folder):
        raise ConfigError(f"{folder}: holds something else than an export; give a new or an empty folder")
    packed = store.load(file)
    packed.verify()
    module: Any = importlib.import_module(target.module)
    if hasattr(module, "prepare"):
        module.prepare()
    with folder_atomically(folder) as place:
        lines: list[str] = module.write(packed, place, options)
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        sizes = {path.relative_to(place).as_posix(): path.stat().st_size for path in files}
        manifest = {"laconic_export": to, "captioner": printable(Path(file).name), "bytes": sizes}
        (place / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf8")
    return [*lines, f"{folder}: {len(sizes)} files, {sum(sizes.values()):,} bytes"]


def is_export(folder: Path) -> bool:
    """Whether a folder may be written over: an earlier export, an empty one, or none."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    if not (folder / MANIFEST).is_file():
        return not any(folder.iterdir())
    with (folder / MANIFEST).open("rb") as found:
        return found.read(len(BEGINS)) == BEGINS
