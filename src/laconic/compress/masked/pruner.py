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
from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from laconic.compress import stacking
from laconic.compress.attaching import Attachment, refuse_untold, unscale, withdraw
from laconic.compress.masked.driver import Driver, MaskedWeight
from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.masks import LearnedMask, Mask
from laconic.compress.masked.method import Method
from laconic.compress.sites import Where, prunable, refuse_unusable
from laconic.errors import PruningError

TOLERANCE = 0.05
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
        frozen: what is done with weights that do not learn, "rest" as below or "prune": their masks move all the same
            (as in Zhou et al. 2019, arXiv 1905.01067, where gates alone learn).

    What the user freezes himself (`requires_grad_(False)`, before or after) rests, where the method prunes while the
    model trains: it keeps the mask it has, to the end, and counts with it, while the target holds for the others. So
    does a weight that never gets a gradient, where the method goes by gradients (Supermask, Fisher).

    Copies of the model keep masks of their own. `AveragedModel` averages the weights, and of masks, which are no
    numbers, takes no average: leave its `use_buffers` false, and refresh batch norms by `update_bn`.

    Masks stack on what laconic has put on a weight already: a mask given before stays, and what it has pruned ranks
    last; see laconic.compress.stacking. Tied weights share one mask.

    Raises:
        PruningError: where no weight matches, where a weight has no shape or values yet, is no floating-point number
            or is computed from other parameters (weight norm, spectral norm), or steps < 1.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        steps: int | None = None,
        where: Where | None = None,
        freeze: Where | None = None,
        frozen: Literal["rest", "prune"] = "rest",
    ) -> None:
        if steps is not None and steps < 1:
            raise PruningError(f"steps={steps}: give the number of training steps, at least 1")
        if steps is None and method.needs_steps:
            raise PruningError(f"{type(method).__name__} needs steps=, the number of training steps")
        self.model = model
        self.method = method
        self.steps = steps or 1
        self.steps_done = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self._attachment: Attachment | None = None
        self._finalized = False
        self._tag = next(stacking.TAGS)
        self._sites = prunable(model, where)
        self.active: dict[str, Mask] = {}
        self._frozen: dict[str, Mask] = {}
        for name, sites in self._sites.items():
            for site in sites:
                stacking.refuse_foreign(name, *site)
            weight = getattr(*sites[0])
            refuse_unusable(name, weight)
            if freeze is not None and freeze(name, weight):
                self._frozen[name] = Frozen().mask(name, weight)
            else:
                self.active[name] = method.mask(name, weight)
        if not self.active:
            raise PruningError(f"no weight to prune: `freeze` holds all of {', '.join(list(self._frozen)[:8])}")
        self._refuse_sparse()
        self._mask()
        self.weights = sum(mask.keep.numel() for mask in self.active.values())
        try:
            rests = frozen == "rest"
            pruned = {name: MaskedWeight(self._sites[name], mask, rests) for name, mask in self.active.items()}
            self.driver: Driver = method.drive(pruned, self.steps)
            self.driver.begin()
        except Exception:
            self._unmask()  # the model may be pruned by another try
            raise

    # Driving

    def attach(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> "Pruner":
        """Hooks into `optimizer.step()`: each one adds the method's penalty to the gates and updates the masks.

        Gates that the optimizer already holds (it was built from `model.parameters()` after pruning) are taken
        out of it: they need their own learning rate and no weight decay. Two betas are inherited.
        `optimizer.zero_grad()` clears them all the same. `scaler` is what scales the loss, where something does: it
        only unscales what an optimizer holds. A step within a step (of an optimizer that wraps another) is none of the
        training's.

        Raises:
            PruningError: where the method cannot go with this optimizer, or the optimizer does not tell of its steps.
        """
        refuse_untold(optimizer)
        self._check_open()
        self.driver.attach(optimizer)
        self._detach()
        withdraw(optimizer, (gates for mask in self.active.values() for gates in mask.parameters()))

        def stepped() -> None:
            if scaler is None or self._unscale(scaler.get_scale()):
                self.driver.add_penalty(self.steps_done)
                self.step()

        self._attachment = Attachment(optimizer, stepped, self._forget_gradients)  # also of a step that was skipped
        self.optimizer = optimizer
        return self

    def penalty(self) -> Tensor | None:
        """The method's loss at the present step, for loops that add it to their own; None where it has none."""
        return self.driver.penalty(self.steps_done)

    def step(self) -> None:
        """One training step is over: the method updates the masks."""
        self._check_open()
        self.steps_done += 1
        self.driver.update(self.steps_done)

    def sense(self, losses: Iterable[Tensor]) -> None:
        """Prunes by the gradients of `losses`, one scalar a batch (SNIP); call it before the training."""
        self._check_open()
        self.driver.sense(losses)

    # Looking

    @property
    def settled(self) -> bool:
        """Whether the masks stand still."""
        return self.driver.settled(self.steps_done)

    @property
    def sparsity(self) -> float:
        """Share of masked weights that evaluation sets to zero now."""
        kept = sum(int(torch.count_nonzero(mask.keep)) for mask in self.active.values())
        return 1 - kept / self.weights

    def masks(self) -> dict[str, Tensor]:
        """Name of each masked weight -> bool tensor, true where evaluation keeps it; frozen ones too."""
        held = {**self.active, **self._frozen}
        return {name: held[name].keep for name in self._sites}

    def gates(self) -> dict[str, Tensor]:
        """Name of each weight whose mask is learned -> its gates, detached."""
        return {name: m.gates.detach() for name, m in self.active.items() if isinstance(m, LearnedMask)}

    def raw(self) -> dict[str, nn.Parameter]:
        """Name of each weight that is being pruned -> the weight without its mask."""
        return {name: stacking.original(*self._sites[name][0]) for name in self.active}

    @property
    def gate_optimizer(self) -> torch.optim.Optimizer | None:
        """That of learned masks; its constants are the Pruner's business."""
        return self.driver.optimizer

    def statistics(self) -> dict[str, float]:
        """Numbers for a training log: the sparsity, and what the method tells."""
        return {"sparsity": self.sparsity, **self.driver.statistics(self.steps_done)}

    @property
    def target(self) -> float:
        """Share of the masked weights that `finalize` sets to zero."""
        return 1 - self.driver.target

    @property
    def near_target(self) -> bool:
        """Whether the non-zeros are within 5 % of the target, so that trimming changes little (the paper's rule)."""
        target = self.driver.target
        return abs(1 - self.sparsity - target) <= TOLERANCE * target

    # Changing

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
        """Sets the number of kept weights to exactly N - int(s N), of those that do not rest."""
        self._check_open()
        self.driver.trim(self.steps_done)

    def finalize(self, copy_of_model: nn.Module | None = None, *, force: bool = False) -> nn.Module:
        """Trims to the exact target, bakes the masks in and gives the ordinary module back, keys and all.

        The optimizer goes on as if there had been no pruner; `sparsity` and `masks()` still tell what was done.

        Args:
            copy_of_model: a copy (`copy.deepcopy`, `AveragedModel(model).module`) made while the masks were on; it is
                finalized by its own masks in the model's place, which goes on as it was.
            force: also where the steps done do not fit `steps`, which cuts to the target at once.

        Raises:
            PruningError: where it has been called before; where trimming now would cut what was to be pruned in the
                steps to come; where more steps were done than announced.
        """
        if copy_of_model is not None:
            return self._twin(copy_of_model)._bake_copy(force)
        self._check_open()
        if not force:
            self._check_steps()
        self.trim()
        self._bake()
        self._detach()
        self._finalized = True
        return self.model

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Step and the driver's state, gates' optimizer included; the masks themselves are in the model's state."""
        return {"steps_done": self.steps_done, **self.driver.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the model's state is loaded separately, before or after, as is `attach`.

        Only an optimizer that was made from the parameters of the pruned model holds gates until `attach` takes them
        out of it: attach first there, then load the optimizer's state.
        """
        self.steps_done = state["steps_done"]
        self.driver.load_state_dict(state, self.steps_done)

    # Parts

    def _refuse_sparse(self) -> None:
        for name, mask in self.active.items():
            for module, _ in self._sites[name]:
                if isinstance(mask, LearnedMask) and getattr(module, "sparse", False):
                    raise PruningError(
                        f"{name} has sparse gradients, of which gates cannot learn; make its {type(module).__name__} "
                        "with sparse=False, or leave it out by `where`"
                    )

    def _check_open(self) -> None:
        if self._finalized:
            raise PruningError("this pruner is finalized already; make a new one to prune further")

    def _check_steps(self) -> None:
        done = f"{self.steps_done} of {self.steps} steps done, sparsity {self.sparsity:.4g} of {self.target:.4g}"
        if not self.method.needs_steps:
            return
        if self.steps_done > self.steps:
            raise PruningError(
                f"{done}: more steps than announced, so the masks settled early; give Pruner(steps=) the number of "
                "times the optimizer steps, or call finalize(force=True) to take the model as it is"
            )
        if self.settled:
            return
        if self.steps_done < self.steps:
            attached = "" if self.optimizer else " (the pruner is attached to no optimizer)"
            raise PruningError(
                f"{done}{attached}: finalizing would cut the rest at once; train on, give Pruner(steps=) the number of "
                "times the optimizer steps, or call finalize(force=True)"
            )

    def _twin(self, model: nn.Module) -> "Pruner":
        """A pruner of the same state on the masks of a copy."""
        twin = copy.copy(self)
        twin.model, twin._attachment, twin.optimizer, twin._finalized = model, None, None, False
        twin._sites, twin.active, twin._frozen = {}, {}, {}
        found = stacking.in_copy(self.model, model, self._sites, self._tag, "mask of this pruner")
        for name, (sites, mask) in found.items():
            twin._sites[name] = sites
            (twin.active if name in self.active else twin._frozen)[name] = cast(Mask, mask)
        twin.driver = self.driver.onto({name: MaskedWeight(twin._sites[name], m) for name, m in twin.active.items()})
        return twin

    def _bake_copy(self, force: bool) -> nn.Module:
        """What `finalize` does, where only the masks tell how far the pruning had come."""
        if not force and not self.near_target:
            raise PruningError(
                f"this copy has a sparsity of {self.sparsity:.4g} of {self.target:.4g}: finalizing would cut the rest "
                "at once; copy the model when pruner.near_target is true, or call finalize(copy, force=True)"
            )
        if abs(self.sparsity - self.target) * self.weights > len(self.active):  # int() may leave one a tensor
            self.driver.trim(0)
        self._bake()
        return self.model

    def _bake(self) -> None:
        with torch.no_grad():
            for name, keep in self.masks().items():
                stacking.original(*self._sites[name][0]).mul_(keep)
        self._unmask()

    def _mask(self) -> None:
        for name, mask in {**self.active, **self._frozen}.items():
            if isinstance(mask, LearnedMask):
                mask.products = all(isinstance(module, PRODUCTS) for module, _ in self._sites[name])
            mask.tag = self._tag
            for module, attribute in self._sites[name]:
                stacking.install(module, attribute, mask)

    def _detach(self) -> None:
        """Leaves the optimizer as it was before `attach`."""
        if self._attachment is not None:
            self._attachment.detach()
        self._attachment = None

    def _unmask(self) -> None:
        """The ordinary module again, with the weights as they are without their masks."""
        for name, mask in {**self.active, **self._frozen}.items():
            stacking.take_off(self._sites[name], mask)

    def _forget_gradients(self) -> None:
        for mask in self.active.values():
            if isinstance(mask, LearnedMask):
                mask.forget_gradient()

    def _unscale(self, scale: float) -> bool:
        """Takes the loss's scale out of the gates' gradients; false, with none left, where one is not finite."""
        if unscale((mask.gates for mask in self.active.values() if isinstance(mask, LearnedMask)), scale):
            return True
        self._forget_gradients()
        return False
