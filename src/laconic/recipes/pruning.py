"""The [pruning] table of a recipe: which method, on which part of a captioner, with which masks to begin from.

The methods themselves are in laconic.compress and know no captions.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from torch import Tensor

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load
from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.frozen import Frozen, masks_of
from laconic.compress.masked.magnitude import Gradual, Magnitude
from laconic.compress.masked.masks import Sampling
from laconic.compress.masked.method import Method
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.ranking import Scope, keep_largest, magnitudes
from laconic.compress.masked.schedule import Cubic
from laconic.compress.masked.snip import Snip
from laconic.compress.masked.supermask import Supermask
from laconic.compress.sites import Where, prunable
from laconic.config import expand
from laconic.errors import ConfigError
from laconic.spec.manifest import GATES, MODEL
from laconic.training.batches import Batches
from laconic.training.checkpoint import load_checkpoint, save_checkpoint
from laconic.training.loop import cross_entropy

EMPTY = 0.01  # share of a ticket's weights that may be zero by chance
# The share of the weights that gates keep above which being zero tells that the gates are those of another run.
# Measured at 95 %: the run's own model none, packed compact 0.3 %, rounded plainly at most 5 %; another run's 71 %.
FOREIGN = 0.1

Part = Literal["none", "all", "encoder", "decoder"]

_CUBIC = ("start", "end", "interval")
_SUPERMASK = ("sparsity", "weight", "learning_rate", "init", "sampling", "penalty", "settle", "pace", "adaptive")
OPTIONS: dict[str, tuple[str, ...]] = {  # of each method, beside method, where and freeze
    "supermask": _SUPERMASK,
    "magnitude": ("sparsity", "scope", "centred"),
    "gradual": ("sparsity", "scope", "centred", *_CUBIC),
    "fisher": ("sparsity", "scope", *_CUBIC),
    "snip": ("sparsity", "batches", "signed"),
    "lottery": ("sparsity", "scope", "centred", "ticket"),
    "frozen": ("ticket",),
}


@dataclass(frozen=True)
class Pruning:
    """What to prune, how and how far; see laconic.compress for the options.

    Attributes:
        method: a row of METHODS, or "none".
        sparsity: share of weights to remove; "frozen" takes none and keeps that of the initial weights.
        where: part of the model.
        freeze: part of it that only keeps its zeros and does not count.
        scope: of "magnitude", "gradual" and "lottery": "blind", "uniform" or "distribution"; of "fisher" the first two.
        centred: "distribution" as the published code computes it, mean taken off.
        ticket: of "lottery": folder of the run whose final weights choose the masks; of "frozen": of the supermask
            run whose gates go on being drawn from; where there are none, the zeros of the initial weights stay.
        start, end, interval: of "gradual" and "fisher": first and last step of the pruning, and the steps between two
            cuts; None: see laconic.compress.masked.schedule.
        batches: of "snip"; more than an epoch has are taken from the next ones.
        signed: "snip" as the published code computes it, for comparison.
        weight: of the sparsity loss (lambda); None derives it.
        learning_rate: of the gates; None derives it.
        init: initial value of the gates.
        sampling, penalty, settle, pace, adaptive: of "supermask".
    """

    method: Literal["none", "supermask", "magnitude", "gradual", "fisher", "snip", "lottery", "frozen"] = "none"
    sparsity: float = 0.0
    where: Literal["all", "encoder", "decoder"] = "decoder"
    freeze: Part = "none"
    scope: Scope = "blind"
    centred: bool = False
    ticket: str = ""
    start: int | None = None
    end: int | None = None
    interval: int | None = None
    batches: int = 1
    signed: bool = False
    weight: float | None = None
    learning_rate: float | None = None
    init: float = 5.0
    sampling: Sampling = "bernoulli"
    penalty: Literal["l1", "l2", "hinge"] = "l1"
    settle: float | None = None
    pace: bool | None = None
    adaptive: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("none", "frozen") and self.sparsity == 0:
            raise ConfigError(
                f'pruning.method = "{self.method}" needs pruning.sparsity, the share of weights to remove'
            )
        if self.method == "none" and self.sparsity > 0:
            raise ConfigError(
                f"pruning.sparsity = {self.sparsity}, but nothing is pruned: name a pruning.method, or set it to 0"
            )
        if self.method != "none":
            self._check_options()
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"pruning.sparsity = {self.sparsity}; give a share of the weights, 0 <= sparsity < 1")
        if self.method == "lottery" and not self.ticket:
            raise ConfigError(
                'pruning.method = "lottery" needs pruning.ticket, the folder of the run to take masks from'
            )

    def _check_options(self) -> None:
        """ConfigError for an option that the method would pass over."""
        taken = ("method", "where", "freeze", *OPTIONS[self.method])
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name not in taken and value != option.default:
                given = f"pruning.{option.name} = {json.dumps(value)}"
                raise ConfigError(f'{given} is no option of "{self.method}"; leave it out')
        if self.centred and self.scope != "distribution":
            raise ConfigError('pruning.centred = true is for pruning.scope = "distribution"; leave it out')


def make_pruner(
    captioner: ImageCaptioner, pruning: Pruning, steps: int, losses: Callable[[int], Iterable[Tensor]]
) -> Pruner | None:
    """The recipe's pruner on the captioner; `losses(n)` gives the losses of n batches, for SNIP.

    Raises:
        ConfigError: where a lottery ticket does not fit.
    """
    if pruning.method == "none":
        return None
    where = part(pruning.where)
    method = METHODS[pruning.method](pruning, captioner, where)
    # An encoder whose learning rate is 0 stands still and is pruned where the recipe says so.
    pruner = Pruner(captioner, method, steps=steps, where=where, freeze=part(pruning.freeze), frozen="prune")
    if method.needs_losses:
        pruner.sense(losses(pruning.batches))
    return pruner


def first_losses(captioner: ImageCaptioner, batches: Batches, smoothing: float) -> Callable[[int], Iterator[Tensor]]:
    """Training losses of the first n batches, for methods that prune before the training."""

    def losses(count: int) -> Iterator[Tensor]:
        captioner.train()
        device = next(captioner.parameters()).device
        for step in range(count):
            batch = batches(*divmod(step, len(batches))).to(device)
            yield cross_entropy(captioner(batch.inputs, batch.tokens), batch.tokens, smoothing)

    return losses


def part(name: Part) -> Where:
    """Predicate over the weights of a part of an ImageCaptioner."""
    if name == "none":
        return lambda *_: False
    prefix = "" if name == "all" else f"{name}."
    return lambda weight, _: weight.startswith(prefix)


def _supermask(pruning: Pruning, *_: object) -> Method:
    return Supermask(
        pruning.sparsity,
        init=pruning.init,
        weight=pruning.weight,
        learning_rate=pruning.learning_rate,
        sampling=pruning.sampling,
        penalty=pruning.penalty,
        settle=pruning.settle,
        pace=pruning.pace,
        adaptive=pruning.adaptive,
    )


def _magnitude(pruning: Pruning, *_: object) -> Method:
    return Magnitude(pruning.sparsity, pruning.scope, centred=pruning.centred)


def _schedule(pruning: Pruning) -> Cubic:
    return Cubic(pruning.start, pruning.end, pruning.interval)


def _gradual(pruning: Pruning, *_: object) -> Method:
    return Gradual(pruning.sparsity, pruning.scope, pruning.centred, _schedule(pruning))


def _fisher(pruning: Pruning, *_: object) -> Method:
    if pruning.scope == "distribution":
        raise ConfigError('pruning.scope = "distribution" is no scope of "fisher"; give "blind" or "uniform"')
    return Fisher(pruning.sparsity, pruning.scope, _schedule(pruning))


def _snip(pruning: Pruning, *_: object) -> Method:
    return Snip(pruning.sparsity, pruning.signed, pruning.batches)


def _lottery(pruning: Pruning, captioner: ImageCaptioner, where: Where) -> Method:
    """Masks by the magnitudes at the end of the ticket's run; the weights are those this run begins with."""
    trained = dict(load(expand(pruning.ticket) / MODEL).named_parameters())
    resting = part(pruning.freeze)
    chosen = {
        name: trained[name]
        for name in prunable(captioner, where)
        if name in trained and not resting(name, trained[name])
    }
    masks = keep_largest(magnitudes(chosen, pruning.scope, pruning.centred), pruning.sparsity, pruning.scope)
    kept, empty = _kept(masks, chosen)
    if empty > EMPTY * kept:
        raise ConfigError(
            f"{pruning.ticket}: a sparsity of {pruning.sparsity:g} keeps {kept:,} weights, {empty:,} of which are zero "
            "there; a ticket cannot be less sparse than the run it is taken from"
        )
    return Frozen(masks)


def _frozen(pruning: Pruning, captioner: ImageCaptioner, where: Where) -> Method:
    if not pruning.ticket:
        return Frozen()
    path = expand(pruning.ticket) / GATES
    if not path.exists():
        raise ConfigError(f"{path}: no gates; give a finished supermask run as pruning.ticket, or none")
    gates = load_checkpoint(path).get("gates")
    if not isinstance(gates, dict) or not all(isinstance(gate, Tensor) for gate in gates.values()):
        raise ConfigError(f"{path}: holds no gates; give a finished supermask run as pruning.ticket, or none")
    foreign = sorted(gates.keys() - {name for name, _ in captioner.named_parameters()})
    if foreign:
        raise ConfigError(f"{path}: gates of another captioner, with {foreign[0]}; give a ticket of the same one")
    weights = {name: getattr(*sites[0]) for name, sites in prunable(captioner, where).items()}
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


def _kept(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many weights the masks keep, and how many of them are zero."""
    kept = sum(int(mask.sum()) for mask in masks.values())
    return kept, sum(int((mask & (weights[name] == 0)).sum()) for name, mask in masks.items())


def save_gates(pruner: Pruner, path: Path) -> None:
    """Writes the gates of a supermask, in bfloat16 since their signs matter most; other methods have none."""
    gates = {name: gate.bfloat16() for name, gate in pruner.gates().items()}
    if gates:
        save_checkpoint({"gates": gates}, path)


METHODS: dict[str, Callable[[Pruning, ImageCaptioner, Where], Method]] = {
    "supermask": _supermask,
    "magnitude": _magnitude,
    "gradual": _gradual,
    "fisher": _fisher,
    "snip": _snip,
    "lottery": _lottery,
    "frozen": _frozen,
}
