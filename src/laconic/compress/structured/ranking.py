"""Which units go: z-scores per kind, one ranking over all of them, and a budget in true cost.

Scores are those of pruning: the highest go first. Ties are settled by order: UPop gives attention before the others.
Everything is computed in float64, so equal scores give equal masks on every machine.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from laconic.compress.structured.groups import Kind
from laconic.errors import PruningError

Scores = Mapping[str, Tensor]
KINDS: tuple[Kind, ...] = ("attention", "feed_forward")


def z_scores(scores: Scores, kinds: Mapping[str, Kind]) -> dict[str, Tensor]:
    """(score - mean) / standard deviation (n - 1), over all groups of a kind together (Algorithm 1, line 8).

    Where all scores of a kind are equal nothing tells its units apart, and each is 0.
    """
    found: dict[str, Tensor] = {}
    for kind in KINDS:
        names = [name for name in scores if kinds[name] == kind]
        if not names:
            continue
        every = torch.cat([scores[name].double() for name in names])
        mean = every.mean()
        spread = every.std() if len(every) > 1 else every.new_zeros(())
        if spread == 0:
            spread = torch.ones_like(spread)
        found |= {name: (scores[name].double() - mean) / spread for name in names}
    return {name: found[name] for name in scores}


def choose(scores: Scores, costs: Mapping[str, int], target: float, *, least: int = 1) -> dict[str, Tensor]:
    """Bool masks of the units to keep, such that the cost of the others is as near to `target` as units allow.

    Goes down the ranking and takes each unit that brings the pruned cost nearer to the target; one that would lead
    further away is passed over, as a cheaper one may follow.

    Args:
        scores: by group, (size,); highest go first.
        costs: of one unit of each group.
        target: cost that should go.
        least: units that each group keeps at any rate; 0 where groups may go altogether.

    Raises:
        PruningError: for scores that are no numbers.
    """
    names = list(scores)
    for name in names:
        if bool(scores[name].isnan().any()):
            raise PruningError(f"{name} cannot be ranked: its scores are not numbers, so the search has diverged")
    flat = torch.cat([scores[name].double() for name in names])
    order = flat.sort(descending=True, stable=True).indices.tolist()
    owner = [name for name in names for _ in range(len(scores[name]))]
    left = {name: len(scores[name]) for name in names}
    keep = torch.ones(len(flat), dtype=torch.bool)
    pruned = 0.0
    for unit in order:
        name = owner[unit]
        nearer = abs(pruned + costs[name] - target) < abs(pruned - target)
        if nearer and left[name] > least:
            keep[unit] = False
            left[name] -= 1
            pruned += costs[name]
    return dict(zip(names, keep.split([len(scores[name]) for name in names]), strict=True))


def published_choice(
    z: Scores, kinds: Mapping[str, Kind], ratio: float, weights: Mapping[Kind, int]
) -> dict[str, Tensor]:
    """Bool masks of the units to keep by the rule of the published code, its faults included.

    The threshold is where the sum of weights down the ranking comes nearest to its share; the unit there stays, and so
    do the lowest of each group. One score that is no number makes every unit of its kind go.
    """
    names = [name for kind in KINDS for name in z if kinds[name] == kind]
    flat = torch.cat([z[name].double() for name in names])
    weight = torch.cat([torch.full((len(z[name]),), weights[kinds[name]], dtype=torch.float64) for name in names])
    order = flat.sort(descending=True, stable=True).indices
    reached = weight[order].cumsum(0)
    threshold = flat[order][(reached - ratio * weight.sum()).abs().argmin()]
    return {name: (z[name] <= threshold) | (z[name] <= z[name].min()) for name in z}
