"""Methods that are a score x scope x schedule, and the one driver that carries all of them out.

A new one is a frozen dataclass that inherits from `Scored` and says in `scores` which weights matter.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from laconic.compress.masked.driver import Driver, MaskedWeight
from laconic.compress.masked.masks import FixedMask
from laconic.compress.masked.method import Method
from laconic.compress.masked.ranking import Scope, Scores, keep_largest
from laconic.compress.masked.schedule import Schedule
from laconic.errors import LaconicWarning, PruningError

# Optimizers of PyTorch with a mean of g^2 per weight, and the names that such means have in an optimizer's state.
# Others (Adamax: a maximum, Adagrad: a sum, Adafactor: rows and columns) are none.
SECOND_MOMENTS = ("exp_avg_sq", "square_avg")
OPTIMIZERS = "Adam", "AdamW", "NAdam", "RAdam", "SparseAdam", "RMSprop", "Adadelta"


class Scored(Method):
    """Weights of small score go.

    Attributes:
        sparsity: share to remove.
        scope: among which weights a score is compared; see `keep_largest`.
        schedule: how the sparsity grows while the model trains; None prunes once, before the training.
        parts: beginning of weights' names, such as "encoder" -> sparsity to remove of these, which are ranked apart;
            the longest that fits counts, and `sparsity` is for the rest. Scores of parts that differ in kind, an
            encoder's convolutions and a decoder's matrices, say little about which of the two can spare more.
    """

    sparsity: float
    parts: Mapping[str, float] = MappingProxyType({})
    scope: Scope = "blind"
    schedule: Schedule | None = None

    def scores(self, weights: Scores, gradients: Scores, moments: Scores) -> dict[str, Tensor]:
        """Name -> score of each weight, of the weight's shape; the higher stays. What has no score keeps its mask.

        Args:
            weights: name -> values, also of weights that are pruned now.
            gradients: name -> dL/dc of the losses given to `Pruner.sense`, c = 1 being the factor by which a mask
                scales the weight: w dL/dw. Empty unless `needs_losses`.
            moments: name -> the optimizer's mean of g^2. Empty unless `needs_moments`; weights that have never had a
                gradient are missing.
        """
        raise NotImplementedError

    def drive(self, weights: Mapping[str, MaskedWeight], steps: int) -> Driver:
        return Ranked(self, weights, steps)


class Ranked(Driver):
    """Sets FixedMasks to the largest scores, once or by a schedule."""

    def __init__(self, method: Scored, weights: Mapping[str, MaskedWeight], steps: int) -> None:
        super().__init__(weights, steps)
        self.method = method
        self.sensed = False
        self._unscored: set[str] = set()
        self._read: torch.optim.Optimizer | None = None
        self._trained = weights  # what the optimizer knows
        if method.schedule is not None:
            method.schedule.over(steps)  # raises where they are too few
        check_named(method.parts, weights)
        self._part = {name: _part_of(name, method.parts) for name in weights}

    @property
    def moving(self) -> dict[str, MaskedWeight]:
        """What is ranked: all of it before the training, later what learns."""
        return {name: weight for name, weight in self.weights.items() if name not in self.held}

    def begin(self) -> None:
        if self.method.schedule is None and not self.method.needs_losses:
            self.prune()

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        if self.method.needs_moments:
            self._check(optimizer)
        self._read = optimizer

    def update(self, step: int) -> None:
        self._require_losses()
        schedule = self.method.schedule
        if schedule is None or self.settled(step - 1):
            return
        self.hold_frozen()
        moments = self._moments()  # at each step, so that it fails at the first
        progress = schedule.sparsity(1.0, step, self.steps)
        if progress is not None:
            self.prune(progress, moments=moments)
        if self.settled(step) and self._unscored:
            self._tell_unscored()

    def _tell_unscored(self) -> None:
        """What no loss depends on cannot be ranked; nobody would see in the model that it has not been pruned."""
        names = sorted(self._unscored)
        share = sum(self.weights[name].size for name in names) / self.count
        warnings.warn(
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}: never had a gradient, so {share:.0%} of the "
            "weights to prune stay as they are; leave them out with where, or take them out of the model",
            LaconicWarning,
            stacklevel=2,
        )

    def settled(self, step: int) -> bool:
        schedule = self.method.schedule
        return schedule is None or step >= schedule.over(self.steps)[1]

    def trim(self, step: int) -> None:
        self._require_losses()
        if not self.settled(step):
            self.prune(moments=self._moments())
            if self.weights.keys() == self.held | self._unscored:
                raise PruningError("nothing can be pruned: all of it is frozen, or has had no gradient yet")

    def sense(self, losses: Iterable[Tensor]) -> None:
        """Masks by the gradients of `losses`, scalars that are asked for one at a time."""
        name = type(self.method).__name__
        if not self.method.needs_losses:
            raise PruningError(f"{name} does not prune by gradients: leave pruner.sense() out")
        weights = {name: weight.parameter for name, weight in self.weights.items()}
        resting = [weight for weight in weights.values() if not weight.requires_grad]
        for weight in resting:  # a part that is pruned but not trained has its effect on the loss, too
            weight.requires_grad_()
        try:
            gradients = _gradients(weights, losses)
        finally:
            for weight in resting:
                weight.requires_grad_(False)
        if not gradients:
            raise PruningError(f"{name} got no losses; give at least one batch")
        self.prune(gradients=gradients)
        self.sensed = True

    def prune(self, progress: float = 1.0, *, gradients: Scores | None = None, moments: Scores | None = None) -> None:
        """Masks by the present scores, to a share of the sparsity; what was pruned before is ranked by its kept value.

        They have no gradient since, but an optimizer's momentum and decay still move them a little.
        """
        values = {name: weight.value for name, weight in self.moving.items()}
        scores = self.method.scores(values, gradients or {}, moments or {})
        self._unscored = values.keys() - scores.keys()
        if not scores:
            return
        for part in (None, *self.method.parts):
            among = {name: score for name, score in scores.items() if self._part[name] == part}
            if not among:
                continue
            for name, keep in keep_largest(among, progress * self._sparsity(part), self.method.scope).items():
                mask = self.weights[name].mask
                assert isinstance(mask, FixedMask)
                mask.set(keep)

    def _sparsity(self, part: str | None) -> float:
        return self.method.sparsity if part is None else self.method.parts[part]

    @property
    def target(self) -> float:
        ranked = self.moving.keys() - self._unscored
        return self.share_under({name: self._sparsity(self._part[name]) for name in ranked})

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "sensed": self.sensed, "unscored": sorted(self._unscored)}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        super().load_state_dict(state, step)
        self.sensed = bool(state.get("sensed", False))
        self._unscored = self.weights.keys() & set(state.get("unscored", ()))

    def _require_losses(self) -> None:
        if self.method.needs_losses and not self.sensed:
            raise PruningError(
                f"{type(self.method).__name__} prunes by gradients: call pruner.sense(losses) before the training"
            )

    def _check(self, optimizer: torch.optim.Optimizer) -> None:
        kind, name = type(optimizer), type(self.method).__name__
        if kind.__module__.startswith("torch.optim") and kind.__name__ not in OPTIMIZERS:
            raise _no_moments(self.method, optimizer)
        trained = {id(held) for group in optimizer.param_groups for held in group["params"]}
        for weight_name, weight in self.weights.items():
            if id(weight.parameter) not in trained and not weight.frozen:
                raise PruningError(
                    f"{name} reads Adam's second moments, {weight_name} has none: train it or leave it out"
                )

    def _moments(self) -> dict[str, Tensor]:
        """The optimizer's means of g^2, of the weights that have had a gradient."""
        if not self.method.needs_moments:
            return {}
        if self._read is None:
            raise PruningError(
                f"{type(self.method).__name__} reads Adam's second moments: attach the pruner to an Adam"
            )
        found = {}
        for name in self.moving:
            parameter = self._trained[name].parameter
            state = self._read.state.get(parameter, {})
            mean = next((state[key] for key in SECOND_MOMENTS if key in state), None)
            if isinstance(mean, Tensor) and mean.shape == parameter.shape and mean.is_floating_point():
                found[name] = mean
            elif state or parameter.grad is not None:
                raise _no_moments(self.method, self._read)
        return found


def _no_moments(method: Method, optimizer: torch.optim.Optimizer) -> PruningError:
    name, lacking = type(method).__name__, type(optimizer).__name__
    return PruningError(f"{name} reads second moments, which {lacking} lacks: attach the pruner to an Adam")


def check_named(parts: Iterable[str], names: Collection[str]) -> None:
    """PruningError where the names of weights begin with none of the parts."""
    found = {_part_of(name, parts) for name in names}
    for part in parts:
        if part not in found:
            raise PruningError(f"parts: there is no weight to prune in {part!r}; there are {', '.join(names)}")


def _part_of(name: str, parts: Iterable[str]) -> str | None:
    """The longest of the parts that a weight's name begins with; None for none."""
    within = [part for part in parts if f"{name}.".startswith(f"{part}.")]
    return max(within, key=len, default=None)


def _gradients(weights: Mapping[str, Tensor], losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """dL/dc = w dL/dw of each weight, summed over the losses; nothing without losses."""
    total: dict[str, Tensor] = {}
    for loss in losses:
        total = total or {name: torch.zeros_like(weight) for name, weight in weights.items()}
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                total[name] += gradient * weight.detach()
    return total
