"""Dataclasses as configuration: from and to TOML and JSON, with errors that name the key.

A configuration is a frozen dataclass of plain values and further such dataclasses. Defaults are no-ops, so adding an
option changes no old run: what is missing in a stored configuration is the default. Knows nothing of what the
options mean.
"""

import dataclasses
import difflib
import hashlib
import json
import operator
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from laconic.errors import ConfigError

C = TypeVar("C")

SHARED = "LACONIC_SHARED"  # where reference data lies; recipes write paths as $LACONIC_SHARED/...

# No recipe that a person wrote comes near these; beyond them reading takes minutes, or Python gives up.
MAX_BYTES = 1 << 20  # of a TOML file
MAX_DOTS = 100  # of one key
MAX_DEPTH = 20  # tables within tables
MAX_BITS = 128  # of an integer


def read_toml(path: Path, kind: type[C]) -> C:
    """Reads a TOML file into the dataclass `kind`; ConfigError names file and key."""
    return from_mapping(read_table(path), kind, str(path))


def read_table(path: Path, what: str = "a recipe") -> dict[str, Any]:
    """What a TOML file holds. ConfigError names the file, and says that it should be `what`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes; give {what} (.toml)")
        text = data.decode("utf8")
        _check_keys(text, path)
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of {what} (.toml)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give {what} (.toml)") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: tables or lists lie more than {MAX_DEPTH} deep; give {what} (.toml)") from None
    except ValueError:  # of an integer with thousands of digits
        raise ConfigError(f"{path}: an integer has too many digits; give {what} (.toml)") from None
    check_plain(table, str(path))
    return table


def _check_keys(text: str, path: Path) -> None:
    """ConfigError for a key of very many dots, over which tomllib takes memory by their square."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if any(key.count(".") > MAX_DOTS for line in lines for key in re.split(r"[={,\[\]]", line)):
        raise ConfigError(f"{path}: a key has more than {MAX_DOTS} dots")


def check_plain(table: Any, where: str) -> None:
    """ConfigError at `where` for tables and lists within each other beyond all use, and for endless integers."""
    layer: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in layer:
            if isinstance(value, int) and value.bit_length() > MAX_BITS:
                raise ConfigError(f"{where}: an integer has more than {MAX_BITS} bits; give a smaller one")
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        layer = inner
        if not layer:
            return
    raise ConfigError(f"{where}: tables or lists lie more than {MAX_DEPTH} deep")


def from_mapping(values: Mapping[str, Any], kind: type[C], where: str) -> C:
    """Builds the dataclass `kind`, nested ones too; unknown keys and wrong types are ConfigErrors at `where`.

    A dataclass may say more in two ClassVars: MOVED, old key -> new one, which is named; and CHOICES, key -> the table
    whose rows are its values, beside its default.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a table, got {values!r}")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            moved = getattr(kind, "MOVED", {}).get(key)
            if moved:
                raise ConfigError(f"{where}.{key} is now {where.rsplit(': ', 1)[-1]}.{moved}")
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
    arguments = {key: _convert(value, hints[key], f"{where}: {key}") for key, value in values.items()}
    for key, rows in getattr(kind, "CHOICES", {}).items():
        possible = [fields[key].default, *rows]
        if key in arguments and arguments[key] not in possible:
            raise ConfigError(f"{where}: {key} = {arguments[key]!r}; choose one of {', '.join(map(repr, possible))}")
    missing = [
        name
        for name, field in fields.items()
        if name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: key {missing[0]!r} is missing")
    return kind(**arguments)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: nested dict of JSON-able values."""
    plain: dict[str, Any] = _listed(dataclasses.asdict(config))
    return plain


def _listed(value: Any) -> Any:
    """The same with lists in the place of tuples, however deep."""
    if isinstance(value, Mapping):
        return {key: _listed(some) for key, some in value.items()}
    return [_listed(some) for some in value] if isinstance(value, list | tuple) else value


def digest(*values: Any) -> str:
    """Sixteen hex digits that change whenever any of the JSON-able values does."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    prefix: str = "",
    *,
    same: Callable[[Any, Any], bool] = operator.eq,
) -> list[str]:
    """Lines such as 'training.epochs: 3 -> 20' for every value that is not the `same`."""
    lines: list[str] = []
    for key in [*new, *(k for k in old if k not in new)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.", same=same)
        elif not same(a, b):
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def expand(path: str) -> Path:
    """A path as a recipe writes it: ~ and environment variables; LACONIC_SHARED is ../shared where unset.

    Raises ConfigError for the home folder of a user whom this machine does not know, and for a path with a NUL.
    """
    value = os.environ.get(SHARED, "../shared")
    expanded = os.path.expandvars(path.replace(f"${{{SHARED}}}", value).replace(f"${SHARED}", value))
    if "\0" in expanded:
        raise ConfigError(f"{path!r}: no path can hold a NUL character; leave it out")
    try:
        return Path(expanded).expanduser()
    except RuntimeError:
        user = expanded.split("/")[0]
        raise ConfigError(
            f"{path}: there is no user {user[1:]!r} here; a folder that is named {user} is ./{user}"
        ) from None


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(value, hint, where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        rest = [choice for choice in choices if choice is not type(None)]
        return _convert(value, rest[0], where)
    if origin is Literal:
        if value not in choices:
            raise ConfigError(f"{where} = {value!r}; choose one of {', '.join(map(repr, choices))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} = {value!r}; expected a list")
        return tuple(_convert(item, choices[0], where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} = {value!r}; expected a table")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= MAX_BITS:
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} = {value!r}; expected {hint.__name__}")
    return value
