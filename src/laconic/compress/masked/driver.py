"""A driver carries a method out: it holds what lasts between steps, and the Pruner holds it.

This one lets masks be as they are given. `Ranked` (scored.py) sets them by scores, `Gates` (gates.py) learns them.

What is frozen rests. A weight that does not learn while masks move (`requires_grad` is false for it or for its gates)
keeps the mask it has, to the end of the run, even where it is thawed later; the target then holds for the others.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from laconic.compress import stacking
from laconic.compress.masked.masks import LearnedMask, Mask
from laconic.errors import PruningError


class MaskedWeight:
    """One weight under a mask, and all the places (module, attribute) that share it; `rests` where it is frozen."""

    def __init__(self, sites: list[tuple[nn.Module, str]], mask: Mask, rests: bool = True) -> None:
        self.sites, self.mask, self.rests = sites, mask, rests
        self.size = mask.keep.numel()

    @property
    def parameter(self) -> nn.Parameter:
        """The trained tensor, which has a value where the mask is zero, too."""
        return stacking.original(*self.sites[0])

    @property
    def value(self) -> Tensor:
        """What the mask gets, detached: the parameter, unless other masks come before."""
        return stacking.value(*self.sites[0], self.mask)

    @property
    def kept(self) -> int:
        """Weights that evaluation keeps."""
        return int(torch.count_nonzero(self.mask.keep))

    @property
    def frozen(self) -> bool:
        """Whether the user has frozen the weight, so that it rests, or its gates."""
        weight = (self.parameter,) if self.rests else ()
        return not all(p.requires_grad for p in (*weight, *self.mask.parameters()))


class Driver:
    """Masks that are given.

    Args:
        weights: name -> what is pruned.
        steps: of the whole training.

    Attributes:
        held: names of those that have been frozen while masks moved.
        optimizer: of the gates, where there are any.
    """

    optimizer: torch.optim.Optimizer | None = None

    def __init__(self, weights: Mapping[str, MaskedWeight], steps: int) -> None:
        self.weights, self.steps = weights, steps
        self.held: set[str] = set()

    # What the Pruner asks for; `step` is the number of steps done

    def begin(self) -> None:
        """All masks are in place and nothing has been trained."""

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """The Pruner is about to be hooked into `optimizer`; PruningError where the method cannot go with it."""

    def sense(self, losses: Iterable[Tensor]) -> None:
        """Prunes by the gradients of some losses before the training."""
        raise PruningError("this method does not prune by gradients: leave pruner.sense() out")

    def penalty(self, step: int) -> Tensor | None:
        """Scalar that the masks add to the loss of a step, if any."""
        return None

    def add_penalty(self, step: int) -> None:
        """Adds the gradient of `penalty` to the masks' gradients."""

    def update(self, step: int) -> None:
        """A training step is over, the `step`-th."""
        self.redraw()

    def settled(self, step: int) -> bool:
        """Whether the masks stand still from now on."""
        return True

    def trim(self, step: int) -> None:
        """Brings the masks to the exact target, wherever the training stands."""

    def statistics(self, step: int) -> dict[str, float]:
        """Numbers for a training log besides the sparsity."""
        return {}

    @property
    def target(self) -> float:
        """Share of all weights that is kept when the target is reached."""
        return self.kept_share

    def onto(self, weights: Mapping[str, MaskedWeight]) -> "Driver":
        """A driver in the same state over the masks of a copy of the model, not settled: it can trim them."""
        twin = copy.copy(self)
        twin.weights = weights
        return twin

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """What lasts, besides the masks."""
        return {"held": sorted(self.held)}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Goes on from `state`; a checkpoint from before there were frozen weights holds none."""
        self.held = set(state.get("held", ()))
        self.redraw()

    # For the drivers themselves

    @property
    def count(self) -> int:
        """Number of weights under a mask."""
        return sum(weight.size for weight in self.weights.values())

    @property
    def kept_share(self) -> float:
        """Share of the weights that evaluation keeps now."""
        return sum(weight.kept for weight in self.weights.values()) / self.count

    @property
    def learned(self) -> dict[str, LearnedMask]:
        """The masks that have gates."""
        return {name: w.mask for name, w in self.weights.items() if isinstance(w.mask, LearnedMask)}

    def redraw(self) -> None:
        """The next forward pass draws new masks where masks are drawn."""
        for mask in self.learned.values():
            mask.redraw()

    def hold_frozen(self) -> set[str]:
        """Notes what has been frozen; the names that are new. PruningError where nothing is left from the start."""
        found = {name for name, weight in self.weights.items() if name not in self.held and weight.frozen}
        self.held |= found
        if len(found) == len(self.weights):
            raise PruningError(
                f"all that is to be pruned is frozen ({', '.join(list(self.weights)[:4])} ...): let it learn "
                "(requires_grad), prune it once by magnitude, or give Pruner(frozen='prune')"
            )
        return found

    def share_under(self, sparsities: Mapping[str, float]) -> float:
        """Share of all weights that is kept when the moving ones, the names of `sparsities`, have reached theirs."""
        resting = sum(weight.kept for name, weight in self.weights.items() if name not in sparsities)
        moving = sum((1 - sparsity) * self.weights[name].size for name, sparsity in sparsities.items())
        return (resting + moving) / self.count
