"""Quantizer: trains any nn.Module in the few whole numbers that are stored of it, while the user's loop stays as it is.

    quantizer = Quantizer(model, bits=4)
    quantizer.attach(optimizer)
    ...                          # train as ever
    quantizer.finalize()         # the ordinary module again, each weight a whole number of its tensor's steps
    store.save(model, "tiny.safetensors", values="trained", steps=quantizer.steps())

Quantisation-aware training with learned steps (LSQ, learned_step.py) of the matrices that a Pruner would mask, with its
verbs. Zeros stay zero: those of a weight that no mask stands on get no gradient, and where a Pruner's masks move, the
quantiser comes after them and sees what they leave.
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from laconic.compress import stacking
from laconic.compress.attaching import Attachment, refuse_untold, unscale, withdraw
from laconic.compress.quantized.bits import CAREFUL, FEW_WEIGHTS, Bits, allot_bits
from laconic.compress.quantized.learned_step import LearnedStep
from laconic.compress.sites import Where, prunable, refuse_unusable
from laconic.compress.stacking import MASK, Sites, Transform
from laconic.errors import PruningError

RATE = 1e-3  # by which share a step changes in one step of the training, at most about


class Quantizer:
    """Holds the quantisers of a model and drives them through training.

    Args:
        model: quantised in place.
        bits: of a weight, sign included: 2 to 8, or a table by the beginning of names such as {"encoder": 8,
            "decoder": 4, "decoder.output": 3}; 0 leaves weights as they are. See laconic.compress.quantized.bits.
        where: predicate (name, weight) -> bool over the model's matrices; default all of them.
        start: steps of the training before it quantises; masks that are learned have settled by then, at best.
        per_row: one step for each row of a matrix (output of a layer) instead of one for all. The packed file has one
            for each tensor.
        careful: least bits of convolutions whose outputs see few channels each: the first one and depthwise ones.
        few: matrices of up to so many weights stay float.
        steps: first steps by names of weights, as of the packed file that a model comes from: a weight that lies on
            such a grid when quantising begins, and fits its bits, starts as it is, not rounded to another one.
        learning_rate: of the steps' logarithms (Adam), as long as the optimizer's own rate is at its highest; it falls
            with that one.

    Biases, norms and other vectors stay float. Tied weights share one step. A weight that rounds to zero is zero until
    it rounds to something else, and counts as one in `sparsity`.

    Raises:
        PruningError: where nothing is left to quantise, bits are not possible, start < 0 or the rate is not positive;
            where a weight is no float32 (autocast leaves it so), has no values yet, has sparse gradients, is quantised
            already, or is computed from other parameters (weight norm, spectral norm).
    """

    def __init__(
        self,
        model: nn.Module,
        bits: Bits = 4,
        *,
        where: Where | None = None,
        start: int = 0,
        per_row: bool = False,
        careful: int = CAREFUL,
        few: int = FEW_WEIGHTS,
        steps: Mapping[str, float] | None = None,
        learning_rate: float = RATE,
    ) -> None:
        if start < 0:
            raise PruningError(f"start={start}: give the number of steps before the model is quantised, at least 0")
        if not 0 < learning_rate < math.inf:
            raise PruningError(f"learning_rate={learning_rate}: give more than 0")
        self.model, self.start, self.learning_rate = model, start, learning_rate
        self.steps_done = 0
        self._first = dict(steps or {})
        self.optimizer: torch.optim.Optimizer | None = None
        self._attachment: Attachment | None = None
        self._highest = 0.0  # learning rate that the attached optimizer has had
        self._finalized: dict[str, Tensor] | None = None
        self._tag = next(stacking.TAGS)
        found = prunable(model, where, "quantise")
        shapes = {name: stacking.shape(*sites[0]) for name, sites in found.items()}
        self.bits = allot_bits(shapes, bits, careful=careful, few=few)
        self._sites: dict[str, Sites] = {name: found[name] for name in self.bits}
        if not self.bits:
            raise PruningError(
                f"no weight to quantise: bits = {bits}, few = {few} leave all of {', '.join(list(found)[:8])} float"
            )
        for name, sites in self._sites.items():
            _refuse(name, sites)
        self.quantisers = {
            name: LearnedStep(stacking.original(*sites[0]), self.bits[name], per_row)
            for name, sites in self._sites.items()
        }
        for name, quantiser in self.quantisers.items():
            quantiser.tag = self._tag
            for site in self._sites[name]:
                stacking.install(*site, quantiser)
        self.step_optimizer = torch.optim.Adam([quantiser.log_step for quantiser in self._each], lr=learning_rate)
        self._masked: set[str] = set()  # names of the weights that a mask stands on
        if not start:
            self._begin()

    # Driving

    def attach(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> "Quantizer":
        """Hooks into `optimizer.step()`: each one moves the steps of the grids along their gradients.

        Steps that the optimizer already holds (it was built from `model.parameters()` afterwards) are taken out of it:
        they have a learning rate of their own and no weight decay. What it remembers of weights that are zero is
        cleared, for momentum would move them. `scaler` is what scales the loss, where something does.

        Raises:
            PruningError: where the optimizer does not tell of its steps.
        """
        refuse_untold(optimizer)
        self._check_open()
        self._detach()
        withdraw(optimizer, (quantiser.log_step for quantiser in self._each))

        def stepped() -> None:
            self.step(1.0 if scaler is None else scaler.get_scale())

        self._attachment = Attachment(optimizer, stepped, self.step_optimizer.zero_grad, self._forget_zeros)
        self.optimizer, self._masked = optimizer, set(self._sites)
        return self

    def step(self, scale: float = 1.0) -> None:
        """One training step is over: steps of grids move along their gradients, which are `scale` times too large."""
        self._check_open()
        self.steps_done += 1
        if self.begun and unscale((quantiser.log_step for quantiser in self._each), scale):
            self._follow_rate()
            self.step_optimizer.step()
        self.step_optimizer.zero_grad()
        if self.steps_done == self.start:
            self._begin()

    # Looking

    @property
    def begun(self) -> bool:
        """Whether weights are quantised already."""
        return all(quantiser.on for quantiser in self._each)

    @property
    def near_target(self) -> bool:
        """Whether the model computes with what would be stored of it."""
        return self.begun

    def steps(self, copy_of_model: nn.Module | None = None) -> dict[str, float]:
        """Name of each quantised weight -> its step, as `store.save` takes them; without those of a step per row.

        Of a copy of the model they are told until that is finalized.
        """
        held = self if copy_of_model is None else self._twin(copy_of_model)
        return {name: float(step) for name, step in held._steps().items() if not step.ndim}

    def row_steps(self) -> dict[str, Tensor]:
        """Name of each weight with a step per row -> its steps (rows,)."""
        return {name: step.flatten() for name, step in self._steps().items() if step.ndim}

    @property
    def sparsity(self) -> float:
        """Share of the quantised weights that are zero now: by masks, and by rounding once it has begun."""
        weights = sum(stacking.original(*sites[0]).numel() for sites in self._sites.values())
        with torch.no_grad():
            kept = sum(int(torch.count_nonzero(getattr(*sites[0]))) for sites in self._sites.values())
        return 1 - kept / weights

    def statistics(self) -> dict[str, float]:
        """Numbers for a training log: the share of quantised weights that are zero, rounded ones among them."""
        return {"quantized_zeros": self.sparsity} if self.begun else {}

    # Changing

    @contextlib.contextmanager
    def trimmed(self) -> Iterator[None]:
        """Within the block the model is as `finalize` makes it, which it is in evaluation anyway."""
        yield

    def finalize(self, copy_of_model: nn.Module | None = None, *, force: bool = False) -> nn.Module:
        """Puts the weights on their grids and gives the ordinary module back, keys and all.

        The value of each quantised weight is code * step in float32. Masks of a Pruner may be finalized before or
        after.

        Args:
            copy_of_model: a copy (`copy.deepcopy`, `AveragedModel(model).module`) made while the quantisers were on; it
                is finalized in the model's place, which goes on as it was.
            force: also where the training, or the copy, has not come to `start`; weights are then rounded without any
                training.

        Raises:
            PruningError: where it has been called before, or the training has not come to `start`.
        """
        if copy_of_model is not None:
            return self._twin(copy_of_model).finalize(force=force)
        self._check_open()
        if not self.begun:
            if not force:
                raise PruningError(
                    f"{self.steps_done} steps done, and weights are quantised from step {self.start} on: train on "
                    "(a copy is made after that), or call finalize(force=True) to round them as they are"
                )
            self._begin()
        with torch.no_grad():
            for name, quantiser in self.quantisers.items():  # not under its masks, which go on, or have been baked in
                weight = stacking.original(*self._sites[name][0])
                weight.copy_(quantiser(weight)).add_(0.0)  # no negative zeros
        self._finalized = self._steps()
        for name, quantiser in self.quantisers.items():
            stacking.take_off(self._sites[name], quantiser)
        self._detach()
        return self.model

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Steps done and the state of their optimizer; the steps of the grids are in the model's state."""
        return {
            "steps_done": self.steps_done,
            "highest": self._highest,
            "optimizer": self.step_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the model's state is loaded separately, before or after.

        Raises KeyError, TypeError or ValueError for what is no such state.
        """
        steps_done, highest = state["steps_done"], float(state["highest"])
        if type(steps_done) is not int or steps_done < 0 or not 0 <= highest < math.inf:
            raise ValueError(f"{steps_done!r} steps done, {highest!r} the highest learning rate")
        self.step_optimizer.load_state_dict(state["optimizer"])
        for group in self.step_optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.steps_done, self._highest = steps_done, highest
        for quantiser in self._each:
            quantiser.on = steps_done >= self.start

    # Parts

    @property
    def _each(self) -> list[LearnedStep]:
        return list(self.quantisers.values())

    def _steps(self) -> dict[str, Tensor]:
        if self._finalized is not None:
            return self._finalized
        return {name: quantiser.step.cpu() for name, quantiser in self.quantisers.items()}

    def _begin(self) -> None:
        for name, quantiser in self.quantisers.items():
            quantiser.begin(stacking.value(*self._sites[name][0], quantiser), self._first.get(name))

    def _follow_rate(self) -> None:
        """The steps learn by the share of their rate that the attached optimizer has of its own highest."""
        if self.optimizer is None:
            return
        rate = max((float(group.get("lr", 0.0)) for group in self.optimizer.param_groups), default=0.0)
        self._highest = max(self._highest, rate)
        share = rate / self._highest if self._highest else 1.0
        for group in self.step_optimizer.param_groups:
            group["lr"] = self.learning_rate * share

    @torch.no_grad()
    def _forget_zeros(self) -> None:
        """Clears what the optimizer remembers of zeros that no mask holds any longer: momentum would move them."""
        masked = {name for name, sites in self._sites.items() if _is_masked(sites)}
        for name in self._masked - masked:
            weight = stacking.original(*self._sites[name][0])
            for held in self.optimizer.state.get(weight, {}).values() if self.optimizer else ():
                if isinstance(held, Tensor) and held.shape == weight.shape:
                    held.mul_(weight != 0)
        self._masked = masked

    def _check_open(self) -> None:
        if self._finalized is not None:
            raise PruningError("this quantizer is finalized already; make a new one to quantise further")

    def _detach(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
        self._attachment = None

    def _twin(self, model: nn.Module) -> "Quantizer":
        """A quantizer of the same state on the quantisers of a copy."""
        twin = copy.copy(self)
        twin.model, twin._attachment, twin.optimizer, twin._finalized = model, None, None, None
        found = stacking.in_copy(self.model, model, self._sites, self._tag, "quantiser of this one")
        twin._sites = {name: sites for name, (sites, _) in found.items()}
        twin.quantisers = {name: cast(LearnedStep, quantiser) for name, (_, quantiser) in found.items()}
        return twin


def _is_masked(sites: Sites) -> bool:
    return any(cast(Transform, transform).order == MASK for transform in stacking.transforms(*sites[0]))


def _refuse(name: str, sites: Sites) -> None:
    """PruningError for a weight that cannot be quantised while it trains."""
    for site in sites:
        stacking.refuse_foreign(name, *site)
    weight = stacking.original(*sites[0])
    refuse_unusable(name, weight)
    if weight.dtype != torch.float32:
        kind = str(weight.dtype).removeprefix("torch.")
        raise PruningError(
            f"{name} holds {kind}, and float32 weights alone are quantised while they train (autocast leaves them so); "
            "leave it out by `where`"
        )
    for module, attribute in sites:
        if any(isinstance(transform, LearnedStep) for transform in stacking.transforms(module, attribute)):
            raise PruningError(f"{name} is quantised already; finalize that quantizer first")
        if getattr(module, "sparse", False):
            raise PruningError(
                f"{name} has sparse gradients, of which no step can learn; make its {type(module).__name__} with "
                "sparse=False, or leave it out by `where`"
            )
