"""The table of pruning methods: every name that a recipe may give, and the dataclass that takes its options.

A row says where the dataclass is, so that recipes are read, compared and listed without torch; `method_class` imports
it once it is needed. Nothing else knows a method by name: what is to be done about one follows from the facts that its
class states.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from laconic.config import from_mapping
from laconic.errors import ConfigError, PruningError

NONE = "none"
METHODS: dict[str, str] = {
    "supermask": "laconic.compress.masked.supermask:Supermask",
    "magnitude": "laconic.compress.masked.magnitude:Magnitude",
    "gradual": "laconic.compress.masked.magnitude:Gradual",
    "fisher": "laconic.compress.masked.fisher:Fisher",
    "snip": "laconic.compress.masked.snip:Snip",
    "lottery": "laconic.recipes.tickets:Lottery",
    "frozen": "laconic.recipes.tickets:FrozenMasks",
}

if TYPE_CHECKING:
    from laconic.compress.masked.method import Method


def method_class(name: str) -> type["Method"]:
    """The dataclass of a row of METHODS, importing it and with it torch. ConfigError for a name that is none."""
    if name not in METHODS:
        raise ConfigError(f"no pruning method {name!r}; there are {', '.join(METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found


def method_of(name: str, options: Mapping[str, Any]) -> "Method":
    """The method with its options; ConfigError for options that it does not have or that are not possible."""
    where = f'pruning.options of "{name}"'
    try:
        return from_mapping(options, method_class(name), where)
    except PruningError as error:
        raise ConfigError(f"{where}: {error}") from None
