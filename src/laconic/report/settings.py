"""A recipe of any version as one plain table: keys where today's recipes have them, and what older ones lack.

Knows names and default values only; what they mean is the recipe's business.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from laconic.decode.search import Decoding
from laconic.recipes import older
from laconic.recipes.recipe import CUBIC, Pruning, Quantization
from laconic.training.settings import Distillation, Training

DEFAULTS = {
    "training": asdict(Training()),
    "decoding": asdict(Decoding()),
    "distillation": asdict(Distillation()),
    "quantization": asdict(Quantization()),
}
OPTIONS = {"sparsity": 0.0, **older.DEFAULTS}  # of any pruning method


def completed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe in today's form, with all that it leaves unsaid."""
    recipe = older.in_todays_form(recipe)
    tables = {key: {**held, **recipe.get(key, {})} for key, held in DEFAULTS.items()}
    return {**recipe, **tables, "pruning": _completed_pruning(recipe.get("pruning", {}))}


def _completed_pruning(table: Mapping[str, Any]) -> dict[str, Any]:
    options = {**OPTIONS, **table.get("options", {})}
    schedule = {**dict.fromkeys(CUBIC), **options.get("schedule", {})}
    return {**asdict(Pruning()), **table, "options": {**options, "schedule": schedule}}


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The table by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
