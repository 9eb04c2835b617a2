"""Pruner: prunes any nn.Module while the user's own training loop stays as it is.

    pruner = Pruner(model, Supermask(sparsity=0.95), steps=10_000)
    pruner.attach(optimizer)
    ...                       # train as ever
    pruner.finalize()         # the ordinary module again, exactly 95 % of the masked weights zero

It masks every matrix (two or more dimensions: Linear, Embedding, Conv, LSTM, GRU and their cells, attention);
biases and norms are left alone. `where(name, weight)` chooses otherwise. Knows nothing of what the model does.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.masks import LearnedMask, Mask
from laconic.compress.masked.method import Method
from laconic.compress.sites import Where, prunable
from laconic.errors import PruningError

TOLERANCE = 0.05
BETAS = (0.9, 0.999)  # of the gates' Adam, where the optimizer of the weights has none
# Modules that need their matrices for matrix products only
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNCellBase)


class Pruner:
    """Holds the masks of a model and drives them through training.

    Args:
        model: pruned in place.
        method: what to do, for example `Supermask(sparsity=0.95)`.
        steps: number of training steps of the whole run; methods with a schedule need it.
        where: predicate (name, weight) -> bool over the model's matrices; default all of them.
        freeze: predicate over the chosen ones: their zeros stay, nothing else of them is pruned or counted.

    Raises:
        PruningError: where no weight matches, a weight already carries a parametrization, or steps < 1.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        steps: int | None = None,
        where: Where | None = None,
        freeze: Where | None = None,
    ) -> None:
        if steps is not None and steps < 1:
            raise PruningError(f"steps={steps}: give the number of training steps, at least 1")
        self.model = model
        self.method = method
        self.steps = steps or 1
        self._scheduled = steps is not None
        self.steps_done = 0
        self.sensed = False
        self._sites = prunable(model, where)
        for name, sites in self._sites.items():
            if any(parametrize.is_parametrized(*site) for site in sites):
                raise PruningError(f"{name} is already pruned or parametrized; finalize that first")
        self._order = {site[0]: list(site[0]._parameters) for s in self._sites.values() for site in s}
        self._hook: RemovableHandle | None = None
        self._zero_grads: tuple[Callable[..., None], Callable[..., None]]
        self.optimizer: torch.optim.Optimizer | None = None
        self._finalized = False
        self.active: dict[str, Mask] = {}
        self._frozen: dict[str, Mask] = {}
        for name, sites in self._sites.items():
            weight = getattr(*sites[0])
            if freeze is not None and freeze(name, weight):
                self._frozen[name] = Frozen().mask(name, weight)
            else:
                self.active[name] = method.mask(name, weight)
        if not self.active:
            raise PruningError(f"no weight to prune: `freeze` holds all of {', '.join(list(self._frozen)[:8])}")
        for name, mask in {**self.active, **self._frozen}.items():
            if isinstance(mask, LearnedMask):
                mask.products = all(isinstance(module, PRODUCTS) for module, _ in self._sites[name])
            for module, attribute in self._sites[name]:
                # unsafe: the check would make a draw, and a mask changes neither shape nor type
                parametrize.register_parametrization(module, attribute, mask, unsafe=True)
        self.weights = sum(mask.keep.numel() for mask in self.active.values())
        try:
            method.begin(self)
            self.gate_optimizer = method.gate_optimizer(self, BETAS)
        except Exception:
            self._unmask()  # the model may be pruned by another try
            raise

    # Driving

    def attach(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> "Pruner":
        """Hooks into `optimizer.step()`: each one adds the method's penalty to the gates and updates the masks.

        Gates that the optimizer already holds (it was built from `model.parameters()` after pruning) are taken
        out of it: they need their own learning rate and no weight decay. Betas are inherited. `optimizer.zero_grad()`
        clears them all the same. `scaler` is what scales the loss, where something does: it only unscales what an
        optimizer holds.
        """
        self.method.attach(self, optimizer)
        gates = {id(p) for mask in self.active.values() for p in mask.parameters()}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in gates]
        self.gate_optimizer = self.method.gate_optimizer(self, optimizer.defaults.get("betas", BETAS))

        def after(*_: object) -> None:
            if scaler is None or self._unscale(scaler.get_scale()):
                self.method.add_gradient(self)
                self.step()

        self._detach()
        zero_grad = optimizer.zero_grad

        def zero_all(set_to_none: bool = True) -> None:
            zero_grad(set_to_none)
            self._forget_gradients()  # those of a step that was skipped

        optimizer.zero_grad = zero_all  # type: ignore[method-assign]
        self._zero_grads = zero_grad, zero_all
        self._hook = optimizer.register_step_post_hook(after)
        self.optimizer = optimizer
        return self

    def penalty(self) -> Tensor | None:
        """The method's loss at the present step, for loops that add it to their own; None where it has none."""
        return self.method.loss(self)

    def step(self) -> None:
        """One training step is over: the method updates the masks."""
        self.steps_done += 1
        self.method.update(self)

    def sense(self, losses: Iterable[Tensor]) -> None:
        """Prunes by the gradients of `losses`, one scalar a batch (SNIP); call it before the training."""
        self.method.sense(self, losses)
        self.sensed = True

    @property
    def settled(self) -> bool:
        """Whether the masks stand still."""
        return self.method.settled(self)

    # Looking

    @property
    def sparsity(self) -> float:
        """Share of masked weights that evaluation sets to zero now."""
        kept = sum(int(torch.count_nonzero(mask.keep)) for mask in self.active.values())
        return 1 - kept / self.weights

    def masks(self) -> dict[str, Tensor]:
        """Name of each masked weight -> bool tensor, true where evaluation keeps it; frozen ones too."""
        held = {**self.active, **self._frozen}
        return {name: held[name].keep for name in self._sites}

    def raw(self) -> dict[str, nn.Parameter]:
        """Name of each weight that is being pruned -> the weight without its mask."""
        return {name: self._raw(name) for name in self.active}

    def statistics(self) -> dict[str, float]:
        """Numbers for a training log: the sparsity, and what the method tells."""
        return {"sparsity": self.sparsity, **self.method.statistics(self)}

    @property
    def near_target(self) -> bool:
        """Whether the non-zeros are within 5 % of the target, so that trimming changes little (the paper's rule)."""
        target = 1 - self.method.target(self)
        return abs(1 - self.sparsity - target) <= TOLERANCE * target

    # Changing

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Keeps the weights where `masks` (name -> bool) is true."""
        for name, keep in masks.items():
            self.active[name].set(keep)

    def require_steps(self, method: Method) -> None:
        """PruningError where the length of the training is not known."""
        if not self._scheduled:
            raise PruningError(f"{type(method).__name__} needs steps=, the number of training steps")

    @contextlib.contextmanager
    def trimmed(self) -> Iterator[None]:
        """Within the block the model is exactly as sparse as `finalize` will make it; afterwards training goes on."""
        before = {name: copy.deepcopy(mask.state_dict()) for name, mask in self.active.items()}
        self.trim()
        try:
            yield
        finally:
            for name, mask in self.active.items():
                mask.load_state_dict(before[name])

    def trim(self) -> None:
        """Sets the number of kept weights to exactly N - int(s N)."""
        self.method.trim(self)

    def finalize(self) -> nn.Module:
        """Trims to the exact target, bakes the masks in and gives the ordinary module back, keys and all.

        The optimizer goes on as if there had been no pruner; `sparsity` and `masks()` still tell what was done.

        Raises:
            PruningError: where it has been called before.
        """
        if self._finalized:
            raise PruningError("this pruner is finalized already; make a new one to prune further")
        self.trim()
        with torch.no_grad():
            for name, keep in self.masks().items():
                self._raw(name).mul_(keep)
        self._unmask()
        self._detach()
        self._finalized = True
        return self.model

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Step and the gates' optimizer; the masks themselves are in the model's state."""
        optimizer = None if self.gate_optimizer is None else self.gate_optimizer.state_dict()
        return {"steps_done": self.steps_done, "sensed": self.sensed, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the model's state is loaded separately."""
        self.steps_done, self.sensed = state["steps_done"], state["sensed"]
        if self.gate_optimizer is not None:
            self.gate_optimizer.load_state_dict(state["optimizer"])
        self.method.resume(self)

    # Parts

    def _detach(self) -> None:
        """Leaves the optimizer as it was before `attach`."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
            before, ours = self._zero_grads
            if self.optimizer is not None and self.optimizer.zero_grad is ours:  # else another pruner came after
                self.optimizer.zero_grad = before  # type: ignore[method-assign]

    def _unmask(self) -> None:
        """The ordinary module again, with the weights as they are without their masks."""
        for sites in self._sites.values():
            shared = self._parameter(*sites[0])
            for module, attribute in sites:
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
                setattr(module, attribute, shared)
        for module, names in self._order.items():  # optimizers and files know parameters by their order
            own = module._parameters
            own.update({name: own.pop(name) for name in names if name in own})

    def _forget_gradients(self) -> None:
        for mask in self.active.values():
            if isinstance(mask, LearnedMask):
                mask.forget_gradient()

    def _unscale(self, scale: float) -> bool:
        """Takes the loss's scale out of the gates' gradients; false, with none left, where one is not finite."""
        learned = [mask for mask in self.active.values() if isinstance(mask, LearnedMask)]
        gradients = [mask.gates.grad.div_(scale) for mask in learned if mask.gates.grad is not None]
        if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            return True
        self._forget_gradients()
        return False

    def _raw(self, name: str) -> nn.Parameter:
        return self._parameter(*self._sites[name][0])

    @staticmethod
    def _parameter(module: nn.Module, attribute: str) -> nn.Parameter:
        return module.parametrizations[attribute].original  # type: ignore
