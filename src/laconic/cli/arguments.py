"""From words on the command line to values: options through tyro, and the files that paths stand for.

Knows no verb.
"""

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from laconic.captioner.ready_made import packed_file
from laconic.cli.messages import say
from laconic.cli.paths import REGISTRY
from laconic.errors import ConfigError
from laconic.machine.cores import cores
from laconic.machine.process import bound_threads
from laconic.spec.manifest import MODEL, RECIPE, RESULT

if TYPE_CHECKING:
    from laconic.captioner.captioning import AnyCaptioner
    from laconic.captioner.loading import Backend

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Verb:
    """One row of VERBS: what it does, an example, its options and the function that takes them.

    `defaults` is for a verb whose defaults lie in a file that its words name: it gives what the others override, which
    may be of another class than `options` where the file is of another kind.
    """

    summary: str
    example: str
    options: Callable[[], type]
    run: Callable[[Any], int | None]
    defaults: Callable[[list[str]], Any] | None = None


def with_types(options: type, **types: Any) -> type:
    """A form of a verb's options in which some fields have these types: choices that are the rows of a table."""
    given = {one.name: one for one in fields(options) if one.name in types}
    typed = [(name, type_, field(default=given[name].default)) for name, type_ in types.items()]
    made = make_dataclass(options.__name__, typed, bases=(options,), frozen=True)
    made.__doc__ = options.__doc__
    return made


def parse(name: str, verb: Verb, words: list[str]) -> Any:
    """The verb's options. Raises ConfigError, one line, for wrong use; SystemExit once help is printed."""
    if verb.defaults is None:
        return _read(name, verb, words)
    return _read(name, verb, words, verb.defaults(words))


def _read(name: str, verb: Verb, words: list[str], default: Any = None) -> Any:
    said = io.StringIO()
    try:
        with REGISTRY, contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(verb.options(), prog=f"laconic {name}", args=words)
            return tyro.cli(type(default), prog=f"laconic {name}", args=words, default=default)
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise ConfigError(_one_line(said.getvalue(), f"laconic {name} --help")) from None


def _one_line(frame: str, help_command: str) -> str:
    """What tyro says in a frame with a title and several parts: what is wrong, then options that may be meant."""
    parts: list[list[str]] = [[]]
    for line in _COLOUR.sub("", frame).splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.strip("─-"):
            parts[-1].append(text)
        elif parts[-1]:
            parts.append([])
    problem = " ".join(parts[0]).rstrip(".") or "wrong use"
    named = [line.split()[0] for part in parts[1:] for line in part if line.startswith("--")]
    hint = f"did you mean {named[0]}?" if named and "meant:" in frame else f"see `{help_command}`"
    return f"{problem[0].lower()}{problem[1:]}; {hint}"


# Files


def model_file(path: Path) -> Path:
    """The packed file that a path stands for: itself, that of a finished run's folder, or a ready-made one's name."""
    if not path.is_dir():
        return packed_file(path)
    model = path / MODEL
    if model.is_file():
        return model
    if (path / RESULT).exists():
        raise ConfigError(f"{path}: its {MODEL} is gone; delete the folder and train the run again")
    if (path / RECIPE).exists():
        raise ConfigError(f"{path}: holds an unfinished run; continue it with `laconic train ... --resume`")
    raise ConfigError(f"{path}: no {MODEL} in it; give a packed file or the folder of a finished run")


def open_captioner(path: Path, backend: "Backend" = "engine", threads: int = 0) -> "AnyCaptioner":
    """Opens a packed captioner: in the engine, or in PyTorch, onto the GPU where there is one.

    A Hugging Face folder of another captioner, such as BLIP, is run by PyTorch whatever the backend.
    """
    from laconic.captioner.loading import load
    from laconic.hf.configuration import CAPTIONER, CONFIG, architecture

    if (path / CONFIG).is_file() and architecture(path) != CAPTIONER:
        from laconic.hf.blip import BlipCaptioner

        bound_threads(threads)
        return BlipCaptioner.from_pretrained(path)
    source = model_file(path)
    if backend == "engine":
        return load(source, threads=threads)
    import torch

    bound_threads(threads)
    return load(source, backend="torch").to("cuda" if torch.cuda.is_available() else "cpu")


# Threads


def with_threads(options: Any) -> Any:
    """The options with no more `threads` than cores, which is said. ConfigError for a negative number."""
    asked = getattr(options, "threads", 0)
    if asked < 0:
        raise ConfigError(f"--threads {asked}: give 0 for all, or at least 1")
    if asked <= cores():
        return options
    say(f"--threads {asked}: there are {cores()} processor cores, so {cores()} threads are used")
    return replace(options, threads=cores())
