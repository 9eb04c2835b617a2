"""Hooking into a training that is not ours: what is to be done after each step of an optimizer.

The Pruner, the Quantizer and UPop attach in the same way. Knows nothing of masks.
"""

import sys
from collections.abc import Callable, Iterable
from types import FrameType

import torch
from torch import nn

from laconic.compress.piecewise import all_finite
from laconic.errors import PruningError


class Attachment:
    """Calls `stepped` after each step of an optimizer, `forget` whenever it clears its gradients, and `starting`, where
    it is given, before each step.

    A step within a step (of an optimizer that wraps another) is none of the training's, and neither is one that a
    GradScaler has skipped, or one that has raised. Gradients that a skipped step leaves behind are those that `forget`
    clears.

    Args:
        optimizer: of the training.
        stepped: a step is over.
        forget: the gradients of a step are cleared.
        starting: a step is to come, and may be skipped.

    Raises:
        PruningError: where the optimizer does not tell of its steps.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        stepped: Callable[[], None],
        forget: Callable[[], None],
        starting: Callable[[], None] | None = None,
    ) -> None:
        refuse_untold(optimizer)
        self.optimizer = optimizer
        depth = 0
        outermost: FrameType | None = None

        def before(*_: object) -> None:
            nonlocal depth, outermost
            caller = sys._getframe(1)
            if depth and not _is_within(caller, outermost):  # that step has raised, so that nobody told of its end
                depth = 0
            if depth == 0:
                outermost = caller
                if starting is not None:
                    starting()
            depth += 1

        def after(*_: object) -> None:
            nonlocal depth, outermost
            depth -= 1
            if depth == 0:
                outermost = None
                if not _skipped(optimizer):
                    stepped()

        zero_grad = optimizer.zero_grad

        def zero_all(set_to_none: bool = True) -> None:
            zero_grad(set_to_none)
            forget()

        optimizer.zero_grad = zero_all  # type: ignore[method-assign]
        self._zero_grads = zero_grad, zero_all
        self._hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def detach(self) -> None:
        """Leaves the optimizer as it was before."""
        for hook in self._hooks:
            hook.remove()
        before, ours = self._zero_grads
        if self._hooks and self.optimizer.zero_grad is ours:  # else another one was attached after
            self.optimizer.zero_grad = before  # type: ignore[method-assign]
        self._hooks = []


def withdraw(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Takes parameters out of an optimizer that may hold them: they have another learning rate, and no weight decay."""
    taken = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:  # in place: some optimizers keep a reference to this list
        group["params"][:] = [p for p in group["params"] if id(p) not in taken]


def unscale(parameters: Iterable[nn.Parameter], scale: float) -> bool:
    """Takes the loss's scale out of gradients of parameters that no optimizer of the training's holds.

    Returns whether all of them are finite.
    """
    gradients = [p.grad.div_(scale) for p in parameters if p.grad is not None]
    return all_finite([gradient.reshape(-1) for gradient in gradients])


def _is_within(frame: FrameType | None, outer: FrameType | None) -> bool:
    """Whether a call is part of another one."""
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


def _skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer has done nothing in its step: a GradScaler calls a fused one all the same and tells it."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def refuse_untold(optimizer: torch.optim.Optimizer) -> None:
    """PruningError for an optimizer that does not tell of its steps as a torch.optim.Optimizer does."""
    if not isinstance(getattr(optimizer, "_optimizer_step_post_hooks", None), dict):
        inside = ".optimizer" if hasattr(optimizer, "optimizer") else ""
        raise PruningError(
            f"{type(optimizer).__name__} does not tell of its steps as a torch.optim.Optimizer does; attach the "
            f"optimizer that it wraps{inside and f' ({inside})'}, or call pruner.step() after each step yourself"
        )
