"""Masks that are given: those of a sparse model that trains on, and lottery tickets.

A lottery ticket (Frankle, Carbin 2019) is no method of its own: masks from a trained model, on weights set back to
where that training began.

    ticket = keep_largest(magnitudes(trained_weights), 0.95)
    Pruner(fresh_model, Frozen(ticket)).attach(optimizer)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.compress.masked.driver import Driver, MaskedWeight
from laconic.compress.masked.masks import FixedMask, LearnedMask, Mask
from laconic.compress.masked.method import Method
from laconic.errors import PruningError


@dataclass(frozen=True, eq=False)
class Frozen(Method):
    """Keeps what is zero at zero.

    Attributes:
        masks: name -> bool, true where a weight stays; or the gates of a supermask, from which training goes on
            drawing masks (the paper's schemes A to C). None: the weights that are not zero now.
    """

    masks: Mapping[str, Tensor] | None = None

    @property
    def moves_masks(self) -> bool:
        """Whether masks are given, which may take away what is there, or go on being drawn from gates."""
        return self.masks is not None

    def mask(self, name: str, weight: Tensor) -> Mask:
        if self.masks is None:
            return FixedMask(weight, weight.detach() != 0)
        if name not in self.masks or self.masks[name].shape != weight.shape:
            raise PruningError(f"no mask of shape {tuple(weight.shape)} for {name}; give masks of the same model")
        given = self.masks[name]
        if given.dtype == torch.bool:
            return FixedMask(weight, given)
        mask = LearnedMask(weight, 0.0)
        with torch.no_grad():
            mask.gates.copy_(given)
        mask.freeze("bernoulli")
        return mask

    def drive(self, weights: Mapping[str, MaskedWeight], steps: int) -> Driver:
        return Driver(weights, steps)


def masks_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of a sparse model: true where a weight is not zero."""
    return {name: weight.detach().to(torch.bool) for name, weight in weights.items()}
