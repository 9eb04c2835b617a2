"""A recipe of any version as one plain table: keys where today's recipes have them, and what older ones lack.

Knows names and default values only; what they mean is the recipe's business.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from laconic.decode.search import Decoding
from laconic.training.settings import Training

PRUNING = {"method": "none", "where": "decoder", "freeze": "none"}
OPTIONS = {  # of any method: recipes once spelled all of them out, whatever the method
    "sparsity": 0.0,
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
SCHEDULE = {"start": None, "end": None, "interval": None}
DEFAULTS = {
    "training": asdict(Training()),
    "decoding": asdict(Decoding()),
    "distillation": {"teacher": "", "weight": 0.5, "temperature": 1.0},
}


def completed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with [pruning] in today's form, options in a table of their own, and with all it leaves unsaid."""
    tables = {key: {**held, **recipe.get(key, {})} for key, held in DEFAULTS.items()}
    return {**recipe, **tables, "pruning": completed_pruning(recipe.get("pruning", {}))}


def completed_pruning(table: Mapping[str, Any]) -> dict[str, Any]:
    """A [pruning] table with method, where, freeze and options; recipes once held the options beside the method."""
    flat = {key: value for key, value in table.items() if key not in (*PRUNING, "options")}
    given = {**flat, **table.get("options", {})}
    schedule = {**SCHEDULE, **{key: given.pop(key) for key in SCHEDULE if key in given}, **given.pop("schedule", {})}
    head = {key: table.get(key, value) for key, value in PRUNING.items()}
    return {**head, "options": {**OPTIONS, **given, "schedule": schedule}}


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The table by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
