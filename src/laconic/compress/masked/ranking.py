"""Which weights stay: the largest scores, over all tensors together or tensor by tensor.

Counts are exact and equal scores are settled by rule, so the same scores always give the same masks.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from laconic.errors import PruningError

Scope = Literal["blind", "uniform", "distribution"]
Scores = Mapping[str, Tensor]


def keep_largest(
    scores: Scores, sparsity: float, scope: Scope = "blind", ties: Scores | None = None
) -> dict[str, Tensor]:
    """Bool masks that drop exactly int(sparsity * N) smallest scores.

    Args:
        scores: name -> tensor; higher stays.
        sparsity: share to drop.
        scope: "uniform" drops that share of each tensor, the others rank all tensors together.
        ties: second criterion for equal scores; without it the first in order stay.

    Raises:
        PruningError: unless 0 <= sparsity <= 1, and for scores that are not numbers.
    """
    if not 0 <= sparsity <= 1:
        raise PruningError(f"sparsity {sparsity} is not possible; give a share of the weights, 0 <= sparsity <= 1")
    for name, tensor in scores.items():
        if tensor.isnan().any():
            raise PruningError(f"{name} cannot be ranked: its scores are not numbers, so the training has diverged")
    if scope == "uniform" or not scores:
        return {
            name: _keep(tensor.flatten(), sparsity, None if ties is None else ties[name].flatten()).view_as(tensor)
            for name, tensor in scores.items()
        }
    flat = torch.cat([tensor.flatten() for tensor in scores.values()])
    second = None if ties is None else torch.cat([ties[name].flatten() for name in scores])
    kept = _keep(flat, sparsity, second).split([tensor.numel() for tensor in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, kept, strict=True)}


def magnitudes(weights: Scores, scope: Scope = "blind", centred: bool = False) -> dict[str, Tensor]:
    """The score of magnitude pruning (See, Luong, Manning 2016): |w|, for "distribution" over its tensor's deviation.

    Class-distribution pruning drops what lies within a common factor of each tensor's standard deviation. With
    `centred` the tensor's mean is taken off first, as the Supermask Pruning code does and its paper does not say.
    """
    if scope != "distribution":
        return {name: weight.detach().abs() for name, weight in weights.items()}
    found = {}
    for name, weight in weights.items():
        weight = weight.detach()
        spread = weight.std(correction=0).clamp(min=torch.finfo(weight.dtype).tiny)
        found[name] = ((weight - weight.mean()) if centred else weight).abs() / spread
    return found


def _keep(scores: Tensor, sparsity: float, ties: Tensor | None) -> Tensor:
    keep = scores.numel() - int(sparsity * scores.numel())
    kept = torch.zeros_like(scores, dtype=torch.bool)
    if not keep:
        return kept
    threshold = scores.topk(keep, sorted=False).values.min()  # linear time, unlike sorting, or kthvalue on some orders
    kept = scores > threshold
    tied = (scores == threshold).nonzero().squeeze(1)
    room = keep - int(kept.sum())
    kept[tied[:room] if ties is None else tied[ties[tied].topk(room).indices]] = True
    return kept
