"""Pruner: prunes any nn.Module while the user's own training loop stays as it is.

    pruner = Pruner(model, Supermask(sparsity=0.95), steps=10_000)
    pruner.attach(optimizer)
    ...                       # train as ever
    pruner.finalize()         # the ordinary module again, exactly 95 % of the masked weights zero

It masks every matrix (two or more dimensions: Linear, Embedding, Conv, LSTM, GRU and their cells, attention);
biases and norms are left alone. `where(name, weight)` chooses otherwise. Knows nothing of what the model does.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from laconic.compress.masks import LearnedMask
from laconic.compress.supermask import Supermask, anneal, sparsity_loss
from laconic.errors import PruningError

Where = Callable[[str, Tensor], bool]

TOLERANCE = 0.05
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def prunable(model: nn.Module, where: Where | None = None) -> dict[str, list[tuple[nn.Module, str]]]:
    """Weights to mask: name of the first site -> all sites (module, parameter name); tied weights have several.

    Raises PruningError where nothing matches.
    """
    sites: dict[int, tuple[str, list[tuple[nn.Module, str]]]] = {}
    seen: list[str] = []
    for prefix, module in model.named_modules():
        if isinstance(module, NORMS) or "parametrizations" in prefix.split("."):
            continue
        for attribute, weight in _matrices(module):
            name = f"{prefix}.{attribute}" if prefix else attribute
            seen.append(name)
            if where is None or where(name, weight):
                sites.setdefault(id(weight), (name, []))[1].append((module, attribute))
    if not sites:
        raise PruningError(
            "no weight to prune: the model has no matrices"
            if not seen
            else f"no weight to prune: `where` refused all of {', '.join(seen[:8])}"
            + (f" and {len(seen) - 8} more" if len(seen) > 8 else "")
        )
    return dict(sites.values())


def _matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters of two or more dimensions, masked ones too; attention's bias_k is a bias."""
    own: dict[str, Any] = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    if parametrize.is_parametrized(module):
        held = module.parametrizations
        own |= {name: held[name].original for name in held if hasattr(held[name], "original")}  # type: ignore
    for name, parameter in own.items():
        if parameter.ndim >= 2 and not name.startswith("bias"):
            yield name, parameter


class Pruner:
    """Holds the masks of a model and drives them through training.

    Args:
        model: pruned in place.
        method: what to do, for example `Supermask(sparsity=0.95)`.
        steps: number of training steps of the whole run; the method's schedule needs it.
        where: predicate (name, weight) -> bool over the model's matrices; default all of them.

    Raises:
        PruningError: where no weight matches, a weight already carries a parametrization, or steps < 1.
    """

    def __init__(self, model: nn.Module, method: Supermask, *, steps: int, where: Where | None = None) -> None:
        if steps < 1:
            raise PruningError(f"steps={steps}: give the number of training steps, at least 1")
        self.model = model
        self.method = method
        self.steps = steps
        self.steps_done = 0
        self._sites = prunable(model, where)
        for name, sites in self._sites.items():
            if any(parametrize.is_parametrized(*site) for site in sites):
                raise PruningError(f"{name} is already pruned or parametrized; finalize that first")
        self._masks: dict[str, LearnedMask] = {}
        self._order = {site[0]: list(site[0]._parameters) for s in self._sites.values() for site in s}
        self._hook: RemovableHandle | None = None
        self._finalized = False
        for name, sites in self._sites.items():
            module, attribute = sites[0]
            mask = method.mask(getattr(module, attribute))
            self._masks[name] = mask
            for module, attribute in sites:
                # unsafe: the check would make a draw, and a mask changes neither shape nor type
                parametrize.register_parametrization(module, attribute, mask, unsafe=True)
        self.weights = sum(m.gates.numel() for m in self._masks.values())
        self.settings = method.settings(self.weights, steps)
        self._optimizer = self._gate_optimizer((0.9, 0.999))

    # Driving

    def attach(self, optimizer: torch.optim.Optimizer) -> "Pruner":
        """Hooks into `optimizer.step()`: gates get the sparsity loss's gradient, their own Adam step and a new draw.

        Gates that the optimizer already holds (it was built from `model.parameters()` after pruning) are taken
        out of it: they need their own learning rate and no weight decay. Betas are inherited.
        """
        gates = {id(m.gates) for m in self._masks.values()}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in gates]
        self._optimizer = self._gate_optimizer(optimizer.defaults.get("betas", (0.9, 0.999)))

        def after(*_: object) -> None:
            if not self.settled:
                self.penalty().backward()
            self.step()
            self._optimizer.zero_grad()

        if self._hook is not None:
            self._hook.remove()
        self._hook = optimizer.register_step_post_hook(after)
        return self

    def penalty(self) -> Tensor:
        """The sparsity loss at the present step, for loops that add it to their loss; scalar."""
        masks = list(self._masks.values())
        return sparsity_loss(masks, self.method, self.settings, self.steps_done, self.steps)

    def step(self) -> None:
        """One training step is over: gates move along their gradients, the next forward draws new masks."""
        self.steps_done += 1
        if self.settled:
            return
        self._optimizer.step()
        for mask in self._masks.values():
            mask.redraw()
        if self._due():
            self.settle()

    @property
    def settled(self) -> bool:
        """Whether the masks stand still."""
        return not next(iter(self._masks.values())).gates.requires_grad

    def settle(self) -> None:
        """Trims to the exact target; from now on the masks stand still and only weights learn."""
        self.trim()
        for mask in self._masks.values():
            mask.freeze()

    # Looking

    @property
    def sparsity(self) -> float:
        """Share of masked weights that evaluation sets to zero now."""
        kept = sum(int(torch.count_nonzero(m.keep)) for m in self._masks.values())
        return 1 - kept / self.weights

    def masks(self) -> dict[str, Tensor]:
        """Name of each masked weight -> bool tensor, true where evaluation keeps it."""
        return {name: mask.keep for name, mask in self._masks.items()}

    def statistics(self) -> dict[str, float]:
        """Numbers for a training log: sparsity, mean gate, penalty."""
        total = sum(float(m.gates.detach().sum(dtype=torch.float64)) for m in self._masks.values())
        sparsity = self.sparsity
        gap = abs(self.method.sparsity - sparsity)
        scale = self.settings.weight * anneal(self.steps_done, self.steps)
        return {"sparsity": sparsity, "gate_mean": total / self.weights, "penalty": scale * gap}

    @property
    def near_target(self) -> bool:
        """Whether the non-zeros are within 5 % of the target, so that trimming changes little (the paper's rule)."""
        target = 1 - self.method.sparsity
        return abs(1 - self.sparsity - target) <= TOLERANCE * target

    # Ending

    @contextlib.contextmanager
    def trimmed(self) -> Iterator[None]:
        """Within the block the model is exactly as sparse as `finalize` will make it; afterwards training goes on."""
        before = {name: mask.gates.detach().clone() for name, mask in self._masks.items()}
        self.trim()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, mask in self._masks.items():
                    mask.gates.copy_(before[name])

    @torch.no_grad()
    def trim(self) -> None:
        """Sets the number of kept weights to exactly N - int(s N): the smallest gates go, or the largest come back.

        Gates of equal value are ranked by the magnitude of their weight.
        """
        keep = self.weights - int(self.method.sparsity * self.weights)
        gates = torch.cat([m.gates.flatten() for m in self._masks.values()])
        kept = torch.zeros_like(gates, dtype=torch.bool)
        if keep:
            threshold = gates.topk(keep).values[-1]
            kept = gates > threshold
            tied = (gates == threshold).nonzero().squeeze(1)
            magnitude = torch.cat([self._raw(name).flatten() for name in self._masks]).abs()[tied]
            kept[tied[magnitude.topk(keep - int(kept.sum())).indices]] = True
        offset = 0
        for mask in self._masks.values():
            part = kept[offset : offset + mask.gates.numel()].view_as(mask.gates)
            offset += mask.gates.numel()
            tiny = torch.finfo(mask.gates.dtype).tiny
            mask.gates.copy_(torch.where(part, mask.gates.clamp(min=tiny), mask.gates.clamp(max=0)))

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
            for name, mask in self._masks.items():
                self._raw(name).mul_(mask.keep)
        for sites in self._sites.values():
            shared = self._parameter(*sites[0])
            for module, attribute in sites:
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
                setattr(module, attribute, shared)
        for module, names in self._order.items():  # optimizers and files know parameters by their order
            own = module._parameters
            own.update({name: own.pop(name) for name in names if name in own})
        if self._hook is not None:
            self._hook.remove()
        self._finalized = True
        return self.model

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Step and the gates' optimizer; the gates themselves are in the model's state."""
        return {"steps_done": self.steps_done, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the model's state is loaded separately."""
        self.steps_done = state["steps_done"]
        self._optimizer.load_state_dict(state["optimizer"])
        for mask in self._masks.values():
            mask.redraw()
            if self._due():
                mask.freeze()

    # Parts

    def _due(self) -> bool:
        return self.settings.settle_at <= self.steps_done < self.steps

    def _gate_optimizer(self, betas: tuple[float, float]) -> torch.optim.Adam:
        gates = [m.gates for m in self._masks.values()]
        rate, epsilon = self.settings.learning_rate, self.settings.epsilon
        return torch.optim.Adam(gates, lr=rate, betas=betas, eps=epsilon, fused=True)

    def _raw(self, name: str) -> Tensor:
        return self._parameter(*self._sites[name][0])

    @staticmethod
    def _parameter(module: nn.Module, attribute: str) -> nn.Parameter:
        return module.parametrizations[attribute].original  # type: ignore
