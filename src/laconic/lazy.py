"""Names of a package that are loaded when they are first used, so that nobody waits for what he does not need."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Lookup = tuple[Callable[[str], Any], Callable[[], list[str]]]


def lazily(package: str, home: Mapping[str, str], *others: str) -> Lookup:
    """`__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        home: public name -> module that defines it; a module is its own home.
        others: names that the package itself holds, for `dir`.

    Looking a name up raises AttributeError for one that is none, and MissingError where an extra that is not installed
    would have brought what it needs.
    """

    def look_up(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(home[name])
        except ModuleNotFoundError as error:
            from laconic.errors import not_installed

            raise not_installed(error) or error from None
        return module if home[name] == f"{package}.{name}" else getattr(module, name)

    return look_up, lambda: sorted([*home, *others])
