"""What a search knows of each unit: masks, their gradients over all steps, and the scores that follow.

Sums are float32 tensors of their own. The published code let the masks' gradients add up by never clearing them, which
mixed precision and some optimizers undid unnoticed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from laconic.compress.structured.groups import Group, Groups
from laconic.compress.structured.methods import Method
from laconic.compress.structured.ranking import KINDS
from laconic.machine.distributed import average, world


class Evidence:
    """Gathers gradients of masks and turns them into scores; learns the masks where the method does.

    Args:
        groups: whose units they are.
        method: how they are scored.
        masks: by group, leaf tensors; written in place.

    Attributes:
        taken: steps whose gradients are known.
        skipped: steps left out, as a gradient was not finite.
    """

    def __init__(self, groups: Groups, method: Method, masks: dict[str, Tensor]) -> None:
        self.groups, self.method, self.masks = groups, method, masks
        self.taken = self.skipped = 0
        self.sums = {name: torch.zeros_like(mask, requires_grad=False) for name, mask in masks.items()}
        self.learner = torch.optim.Adam(masks.values(), lr=method.rate) if method.score == "mask" else None

    def take(self, scale: float = 1.0) -> None:
        """Adds the gradients of a step, unscaled and averaged over all processes, and clears them.

        A step whose gradients are not all finite, in any process, is left out in every one.
        """
        gradients = {name: mask.grad for name, mask in self.masks.items()}
        if world() == 1 and all(gradient is None for gradient in gradients.values()):
            return
        device = next(iter(self.masks.values())).device
        flat = torch.cat([
            torch.zeros(len(self.masks[name]), device=device) if gradient is None else gradient.float().to(device)
            for name, gradient in gradients.items()
        ])  # fmt: skip
        flat = average(flat / scale)
        self.forget()
        if not bool(torch.isfinite(flat).all()):
            self.skipped += 1
            return
        self.taken += 1
        parts = flat.split([len(mask) for mask in self.masks.values()])
        for (name, mask), gradient in zip(self.masks.items(), parts, strict=True):
            gradient = gradient.to(mask.device)
            if self.learner is not None:
                mask.grad = gradient
            self.sums[name] += (gradient * mask.detach()) ** 2 if self.method.score == "taylor" else gradient
        if self.learner is not None:
            self.learner.step()
            self.forget()

    def forget(self) -> None:
        """Clears gradients that no step has taken."""
        for mask in self.masks.values():
            mask.grad = None

    @property
    def known(self) -> bool:
        """Whether scores tell units apart: magnitudes always do, all others once a gradient has been taken."""
        return self.method.score == "magnitude" or self.taken > 0

    def add_penalty(self, scale: float = 1.0) -> None:
        """Adds the gradient of `penalty`, scaled as the loss was, where that has given the masks one."""
        penalty = self.penalty()
        if penalty is not None and any(mask.grad is not None for mask in self.masks.values()):
            (penalty * scale).backward()  # type: ignore[no-untyped-call]

    def penalty(self) -> Tensor | None:
        """penalty x mean |mask| of each kind, summed over the kinds; None where masks are not learned."""
        if self.learner is None:
            return None
        kinds = ([self.masks[group.name] for group in self.groups if group.kind == kind] for kind in KINDS)
        return self.method.penalty * torch.stack([torch.cat(masks).abs().mean() for masks in kinds if masks]).sum()

    def scores(self) -> dict[str, Tensor]:
        """By group, (size,) on the CPU: the highest go first."""
        if self.method.score == "gradient":
            return {name: total.cpu() for name, total in self.sums.items()}
        if self.method.score == "taylor":
            return {name: -total.cpu() for name, total in self.sums.items()}
        if self.method.score == "mask":
            return {name: -mask.detach().abs().cpu() for name, mask in self.masks.items()}
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
            "taken": self.taken,
            "skipped": self.skipped,
        }
        if self.learner is not None:
            state["learner"] = self.learner.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave. ValueError where it is of other groups or another method."""
        shapes = {name: mask.shape for name, mask in self.masks.items()}
        if any({name: of.shape for name, of in state[key].items()} != shapes for key in ("masks", "sums")):
            raise ValueError("the search is of other groups")
        if ("learner" in state) != (self.learner is not None):
            raise ValueError("the search is of another method: masks are learned in one of them only")
        self.set(state["masks"])
        for name, total in self.sums.items():
            total.copy_(state["sums"][name])
        self.taken, self.skipped = int(state["taken"]), int(state["skipped"])
        if self.learner is not None:
            self.learner.load_state_dict(state["learner"])

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
