"""What a search knows of each unit: masks, their gradients over all steps, and the scores that follow.

Sums are float32 tensors of their own. The published code let the masks' gradients add up by never clearing them, which
mixed precision and some optimizers undid unnoticed.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.compress.structured.groups import Group, Groups
from laconic.compress.structured.methods import Method
from laconic.compress.structured.ranking import KINDS
from laconic.machine.distributed import world


class Evidence:
    """Gathers gradients of masks and turns them into scores; learns the masks where the method does.

    Args:
        groups: whose units they are.
        method: how they are scored.
        masks: by group, leaf tensors; written in place.

    Attributes:
        skipped: steps left out, as a gradient was not finite.
    """

    def __init__(self, groups: Groups, method: Method, masks: dict[str, Tensor]) -> None:
        self.groups, self.method, self.masks = groups, method, masks
        self.skipped = 0
        self.sums = {name: torch.zeros_like(mask, requires_grad=False) for name, mask in masks.items()}
        self.learner = torch.optim.Adam(masks.values(), lr=method.rate) if method.score == "mask" else None

    def take(self, scale: float) -> None:
        """Adds the gradients of a step, unscaled and averaged over all processes, and clears them."""
        held = [mask.grad for mask in self.masks.values()]
        if all(gradient is None for gradient in held):
            return
        flat = torch.cat([
            torch.zeros_like(mask) if mask.grad is None else mask.grad.float() for mask in self.masks.values()
        ]) / scale  # fmt: skip
        if world() > 1:
            dist.all_reduce(flat)
            flat /= world()
        self.forget()
        if not bool(torch.isfinite(flat).all()):
            self.skipped += 1
            return
        parts = flat.split([len(mask) for mask in self.masks.values()])
        gradients = dict(zip(self.masks, parts, strict=True))
        if self.learner is not None:
            self._learn(gradients)
        for name, gradient in gradients.items():
            taylor = self.method.score == "taylor"
            self.sums[name] += (gradient * self.masks[name].detach()) ** 2 if taylor else gradient

    def forget(self) -> None:
        """Clears gradients that no step has taken."""
        for mask in self.masks.values():
            mask.grad = None

    def penalty(self) -> Tensor | None:
        """penalty x mean |mask| of each kind, summed over the kinds; None where masks are not learned."""
        if self.learner is None:
            return None
        total = torch.zeros(())
        for kind in KINDS:
            masks = [self.masks[group.name] for group in self.groups if group.kind == kind]
            if masks:
                total = total + self.method.penalty * torch.cat(masks).abs().mean()
        return total

    def scores(self) -> dict[str, Tensor]:
        """By group, (size,): the highest go first."""
        if self.method.score == "gradient":
            return dict(self.sums)
        if self.method.score == "taylor":
            return {name: -total for name, total in self.sums.items()}
        if self.method.score == "mask":
            return {name: -mask.detach().abs() for name, mask in self.masks.items()}
        return {group.name: -self._norms(group) for group in self.groups}

    def set(self, values: Mapping[str, Tensor]) -> None:
        """Gives the masks other values."""
        with torch.no_grad():
            for name, value in values.items():
                self.masks[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Masks, sums and the optimizer of learned masks."""
        state: dict[str, Any] = {
            "masks": {name: mask.detach().clone() for name, mask in self.masks.items()},
            "sums": {name: total.clone() for name, total in self.sums.items()},
            "skipped": self.skipped,
        }
        if self.learner is not None:
            state["learner"] = self.learner.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.set(state["masks"])
        for name, total in self.sums.items():
            total.copy_(state["sums"][name])
        self.skipped = int(state["skipped"])
        if self.learner is not None:
            self.learner.load_state_dict(state["learner"])

    def _learn(self, gradients: Mapping[str, Tensor]) -> None:
        penalty = self.penalty()
        if penalty is not None:
            penalty.backward()
        for name, mask in self.masks.items():
            mask.grad = gradients[name] + (0 if mask.grad is None else mask.grad)
        if self.learner is not None:
            self.learner.step()
        self.forget()

    def _norms(self, group: Group) -> Tensor:
        """(size,) norm of all weights of each unit: rows of producers, columns of consumers."""
        squares = torch.zeros(group.size)
        for path in group.producers:
            weight = self.groups.model.get_submodule(path).get_parameter("weight").detach().float()
            squares += weight.pow(2).sum(1).view(-1, group.size).sum(0).cpu()
        for path in group.consumers:
            weight = self.groups.model.get_submodule(path).get_parameter("weight").detach().float()
            squares += weight.pow(2).sum(0).view(-1, group.size).sum(0).cpu()
        return squares.sqrt()
