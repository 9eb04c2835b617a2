"""Recipes of earlier versions, as run folders hold them, in today's form.

Up to version 0.1 the options of all pruning methods stood side by side in [pruning], with their defaults; now each
method has its own in [pruning.options], and only what is set. What a user writes today in the old form is refused with
the new key; what is stored in old run folders is translated.
"""

from collections.abc import Mapping
from typing import Any

from laconic.recipes.methods import NONE
from laconic.recipes.recipe import CUBIC, FLAT

# The flat options' defaults, then and now: what equals them says nothing.
DEFAULTS: dict[str, Any] = {
    "scope": "blind",
    "centred": False,
    "ticket": "",
    "batches": 1,
    "signed": False,
    "weight": None,
    "learning_rate": None,
    "init": 5.0,
    "sampling": "bernoulli",
    "penalty": "l1",
    "settle": None,
    "pace": None,
    "adaptive": False,
}


def is_old(recipe: Mapping[str, Any]) -> bool:
    """Whether the table of a `recipe.json` has the options of its method beside the method's name."""
    return any(key in recipe.get("pruning", {}) for key in (*FLAT, *CUBIC))


def in_todays_form(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a `recipe.json` of any version, as today's version would have written it.

    Keys that only later versions have stay away: they have their defaults. The argument is left as it is.
    Raises AttributeError, TypeError or ValueError for what is no recipe.
    """
    if not is_old(recipe):
        return dict(recipe)
    table = recipe["pruning"]
    pruning = {key: value for key, value in table.items() if key not in (*FLAT, *CUBIC)}
    if pruning.get("method", NONE) != NONE:
        options = {key: table[key] for key in FLAT if key in table and (key != "sparsity" or table[key])}
        timed = {key: table[key] for key in CUBIC if table.get(key) is not None}
        pruning["options"] = without_defaults(options) | ({"schedule": timed} if timed else {})
    return {**recipe, "pruning": pruning}


def without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method of version 0.1 that are not its defaults."""
    return {key: value for key, value in options.items() if key not in DEFAULTS or value != DEFAULTS[key]}
