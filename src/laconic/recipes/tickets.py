"""Pruning methods that take their masks from the folder of another run, once the captioner is there.

A lottery ticket has the masks of a trained run on the weights that its training began with; frozen masks are the zeros
of the captioner to start from, or the gates that a supermask run has learned, which go on being drawn from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from laconic.captioner.packing import load
from laconic.compress.masked.frozen import Frozen, masks_of
from laconic.compress.masked.method import Method, check_share
from laconic.compress.masked.ranking import Scope, keep_largest, magnitudes
from laconic.compress.sites import Where, prunable
from laconic.config import expand
from laconic.errors import ConfigError
from laconic.spec.manifest import GATES, MODEL
from laconic.training.checkpoint import load_checkpoint

EMPTY = 0.01  # share of a ticket's weights that may be zero by chance
# The share of the weights that gates keep above which being zero tells that the gates are those of another run.
# Measured at 95 %: the run's own model none, packed compact 0.3 %, rounded plainly at most 5 %; another run's 71 %.
FOREIGN = 0.1


@dataclass(frozen=True)
class Lottery(Method):
    """A lottery ticket (Frankle, Carbin 2019): the largest weights of a trained run, set back to its beginning.

    Attributes:
        sparsity: share of the masked weights to remove, 0 <= sparsity < 1.
        ticket: folder of the finished run whose final weights choose the masks.
        scope: "blind" ranks all weights together, "uniform" each tensor on its own, "distribution" by multiples of the
            tensor's standard deviation.
        centred: "distribution" takes the tensor's mean off first, as the published code does.
    """

    sparsity: float
    ticket: str
    scope: Scope = "blind"
    centred: bool = False

    needs_ticket: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("sparsity", self.sparsity)
        if not self.ticket:
            raise ConfigError('pruning.options of "lottery": give the folder of the run to take masks from as ticket')
        if self.centred and self.scope != "distribution":
            raise ConfigError('pruning.options of "lottery": centred is for scope = "distribution"; leave it out')

    def resolve(self, model: nn.Module, where: Where, freeze: Where) -> Method:
        """Frozen; ConfigError where the ticket's run is less sparse than asked for."""
        trained = dict(load(expand(self.ticket) / MODEL).named_parameters())
        chosen = {
            name: trained[name]
            for name in prunable(model, where)
            if name in trained and not freeze(name, trained[name])
        }
        masks = keep_largest(magnitudes(chosen, self.scope, self.centred), self.sparsity, self.scope)
        kept, empty = _kept(masks, chosen)
        if empty > EMPTY * kept:
            raise ConfigError(
                f"{self.ticket}: a sparsity of {self.sparsity:g} keeps {kept:,} weights, {empty:,} of which are zero "
                "there; a ticket cannot be less sparse than the run it is taken from"
            )
        return Frozen(masks)


@dataclass(frozen=True)
class FrozenMasks(Method):
    """Masks that do not learn any more.

    Attributes:
        ticket: folder of the supermask run whose gates go on being drawn from; where there are none, and for all
            weights without a ticket, the zeros of the initial weights stay.
    """

    ticket: str = ""

    @property
    def moves_masks(self) -> bool:
        """Whether masks change in training: those that are drawn do, and zeros that are there already stay."""
        return bool(self.ticket)

    def resolve(self, model: nn.Module, where: Where, freeze: Where) -> Method:
        """Frozen; ConfigError where the ticket has no gates, or those of another captioner."""
        if not self.ticket:
            return Frozen()
        path = expand(self.ticket) / GATES
        weights = {name: getattr(*sites[0]) for name, sites in prunable(model, where).items()}
        gates = _gates(path, model)
        alike = {
            name: gate.to(weights[name].device) > 0
            for name, gate in gates.items()
            if name in weights and gate.shape == weights[name].shape
        }
        kept, empty = _kept(alike, weights)
        if empty > FOREIGN * kept:
            raise ConfigError(
                f"{path}: {empty:,} of {kept:,} weights that these gates keep are zero in the captioner to start from; "
                "give the model of the same run as initial"
            )
        return Frozen({**masks_of(weights), **gates})


def _gates(path: Path, model: nn.Module) -> dict[str, Tensor]:
    ask = "give a finished supermask run as pruning.options.ticket, or none"
    if not path.exists():
        raise ConfigError(f"{path}: no gates; {ask}")
    gates = load_checkpoint(path).get("gates")
    if not isinstance(gates, dict) or not all(map(_is_gates, gates.values())):
        raise ConfigError(f"{path}: holds no gates; {ask}")
    foreign = sorted(gates.keys() - {name for name, _ in model.named_parameters()})
    if foreign:
        raise ConfigError(f"{path}: gates of another captioner, with {foreign[0]}; give a ticket of the same one")
    return gates


def _is_gates(found: object) -> bool:
    return isinstance(found, Tensor) and found.is_floating_point() and found.layout == torch.strided


def _kept(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many weights the masks keep, and how many of them are zero."""
    kept = sum(int(mask.sum()) for mask in masks.values())
    return kept, sum(int((mask & (weights[name] == 0)).sum()) for name, mask in masks.items())
