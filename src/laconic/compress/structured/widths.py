"""Widths that hardware likes: multiples of 8, say, with the budget repaired afterwards."""

from collections.abc import Mapping

import torch
from torch import Tensor

from laconic.compress.structured.ranking import Scores


def round_widths(
    scores: Scores,
    costs: Mapping[str, int],
    keep: Mapping[str, Tensor],
    multiple: int,
    target: float,
    *,
    least: int = 1,
) -> dict[str, Tensor]:
    """Bool masks whose widths are multiples, the pruned cost within one block of `target` where blocks allow.

    Each width goes to the nearest multiple; then blocks of the units at the edge are taken or given back, those of the
    best mean score first, while that brings the cost nearer to the target. A group keeps all its units, a multiple of
    them, or, where it has fewer than that or a multiple would be none, `least` of them.

    Args:
        scores: by group, (size,); highest go first.
        keep: what the ranking keeps.
        least: units that each group keeps at any rate; 0 where groups may go altogether.
    """
    lowest = {name: scores[name].double().argsort(stable=True) for name in scores}  # best units first
    widths = {name: _nearest(int(mask.sum()), len(mask), multiple, least) for name, mask in keep.items()}
    total = sum(costs[name] * len(mask) for name, mask in keep.items())

    def gap(of: Mapping[str, int]) -> float:
        return total - sum(costs[name] * width for name, width in of.items()) - target

    while True:
        missing = gap(widths)
        moves = []
        for name, width in widths.items():
            allowed = allowed_widths(len(keep[name]), multiple, least)
            place = allowed.index(width)
            other = place - 1 if missing < 0 else place + 1
            if not 0 <= other < len(allowed):
                continue
            after = allowed[other]
            if abs(gap({**widths, name: after})) < abs(missing):
                edge = scores[name].double()[lowest[name][min(width, after) : max(width, after)]].mean()
                moves.append((float(-edge if missing < 0 else edge), name, after))
        if not moves:
            break
        _, name, after = min(moves)
        widths[name] = after
    found = {}
    for name, width in widths.items():
        kept = torch.zeros(len(keep[name]), dtype=torch.bool)
        kept[lowest[name][:width].cpu()] = True
        found[name] = kept
    return found


def allowed_widths(size: int, multiple: int, least: int) -> list[int]:
    """Widths that a group of `size` units may have, ascending."""
    first = least if size <= multiple or least == 0 else multiple
    return sorted({first, *range(multiple, size + 1, multiple), size})


def _nearest(width: int, size: int, multiple: int, least: int) -> int:
    return min(allowed_widths(size, multiple, least), key=lambda allowed: (abs(allowed - width), -allowed))
