"""Names, colours and marks of the pruning methods: the same in every table and figure.

Colours are told apart by colour-blind readers; the marks tell the methods apart in grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from laconic.report.runs import FinishedRun

INK, SOFT, RULE = "#211e1a", "#6f6a62", "#e4dfd6"


@dataclass(frozen=True)
class Style:
    """How a method is drawn."""

    colour: str
    marker: str


STYLES: dict[str, Style] = {
    "dense": Style("#6d7683", "o"),
    "dense, distilled": Style("#a9b1bb", "s"),
    "SMP": Style("#c2552d", "o"),
    "SMP, distilled": Style("#e39a6f", "D"),
    "gradual": Style("#1f6fa8", "s"),
    "gradual, uniform": Style("#5aa5d6", "p"),
    "gradual, distribution": Style("#123f61", "h"),
    "hard, blind": Style("#7d5ba6", "^"),
    "hard, uniform": Style("#b07cc6", "v"),
    "hard, distribution": Style("#4f3b78", "D"),
    "hard, distribution, centred": Style("#93749e", "d"),
    "SNIP": Style("#2e8b6a", "X"),
    "SNIP, signed": Style("#7fbf9f", "x"),
    "lottery (gradual)": Style("#b8860b", "P"),
    "lottery (blind)": Style("#d9b44a", "<"),
    "lottery (uniform)": Style("#8a6508", ">"),
    "lottery (distribution)": Style("#5c4405", "8"),
    "frozen masks": Style("#3c3c3c", "*"),
}
# Methods that slim Transformers; they are never drawn beside the others, and bear the colours of what they resemble.
SLIM_STYLES: dict[str, Style] = {
    "upop": Style("#c2552d", "o"),
    "published": Style("#e39a6f", "D"),
    "unified": Style("#1f6fa8", "s"),
    "progressive": Style("#5aa5d6", "p"),
    "mask": Style("#7d5ba6", "^"),
    "magnitude": Style("#2e8b6a", "X"),
    "taylor": Style("#b8860b", "P"),
}
_EVERY = {**STYLES, **SLIM_STYLES}
_HARD, _GRADUAL = "hard", "gradual"


def method_name(run: FinishedRun) -> str:
    """Such as "SMP", "hard, uniform", "lottery (gradual)" or "SMP, distilled, 4 bits"; of frozen masks their maker."""
    ends = sorted({*run.bits[:1], *run.bits[-1:]})
    bits = f", {' to '.join(map(str, ends))} bits" if ends else ""
    return _pruned_by(run) + (", distilled" if run.distilled else "") + bits


def learned_masks(run: FinishedRun) -> bool:
    """Whether SMP made the masks of a run."""
    return _pruned_by(run) == "SMP"


def _pruned_by(run: FinishedRun) -> str:
    pruning = run.pruning
    scope = str(pruning["scope"]) + (", centred" if pruning["centred"] else "")
    match pruning["method"]:
        case "none":
            return "dense"
        case "supermask":
            return "SMP"
        case "magnitude":
            return f"{_HARD}, {scope}"
        case "gradual":
            return _GRADUAL if scope == "blind" else f"{_GRADUAL}, {scope}"
        case "snip":
            return "SNIP, signed" if pruning["signed"] else "SNIP"
        case "lottery":
            drawn = run.pruning_beside(Path(str(pruning["ticket"])).name)["method"] == "gradual"
            return f"lottery ({_GRADUAL if drawn else scope})"
        case "frozen":
            origin = run.pruning_beside(Path(str(run.recipe.get("initial", ""))).parent.name)
            known = origin["method"] not in ("none", "frozen")
            return _pruned_by(replace(run, recipe={**run.recipe, "pruning": origin})) if known else "frozen masks"
        case other:
            return str(other)


def style_of(method: str) -> Style:
    """The style of the method, or of the nearest one that its name begins with."""
    family = [name for name in _EVERY if method.startswith(name)]
    return _EVERY[max(family, key=len)] if family else Style(SOFT, "H")


def in_order(methods: Sequence[str]) -> list[str]:
    """Each method once, in the order of the tables of styles; others by name after them."""
    known = list(_EVERY)

    def place(method: str) -> tuple[int, str]:
        near = [i for i, name in enumerate(known) if method == name or method.startswith(f"{name} (")]
        return (near[0] if near else len(known), method)

    return sorted(set(methods), key=place)
