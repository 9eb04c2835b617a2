"""UPop: unified and progressive pruning of a Transformer's units while it trains (Shi et al. 2023, arXiv 2301.13741).

    groups = find_groups(blip, inputs)
    upop = UPop(groups, ratio=0.5, steps=10_000)
    upop.attach(optimizer)
    ...                       # train as ever
    slim = upop.shrink()      # half of the prunable parameters are gone, and tensors are really smaller

The verbs are those of the Pruner. Masks multiply the outputs of the layers that make the units, after their biases and
before the activation, one number a unit; they are tensors of UPop's own, which no optimizer of the model's holds.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laconic.compress.attaching import Attachment
from laconic.compress.structured.evidence import Evidence
from laconic.compress.structured.groups import Group, Groups
from laconic.compress.structured.methods import UPOP, Method
from laconic.compress.structured.progress import check_search, ratio_at, updates_at, usual_interval
from laconic.compress.structured.ranking import PUBLISHED_WEIGHTS, Scores, choose, published_choice, z_scores
from laconic.compress.structured.shrink import shrink
from laconic.compress.structured.widths import round_widths
from laconic.errors import PruningError

Budget = Literal["parameters", "macs", "mask-count"]


class UPop:
    """Finds the units that go, and takes them away.

    Args:
        groups: of the model, from `find_groups`.
        ratio: share of the budget that goes.
        steps: training steps of the search.
        budget: what is shared out: true parameters, multiply-adds for the inputs that `find_groups` was given, or the
            number of units.
        method: how units are scored and when they go; METHODS has the named ones.
        interval: steps between two updates of the masks; 0 for as many as 1 % of compression takes.
        multiple: widths become multiples of it at the end.
        remove: whether a module may go altogether; otherwise each keeps at least one unit.

    Raises:
        PruningError: for numbers that no search can have, and for a budget that groups do not tell.
    """

    def __init__(
        self,
        groups: Groups,
        *,
        ratio: float,
        steps: int,
        budget: Budget = "parameters",
        method: Method = UPOP,
        interval: int = 0,
        multiple: int = 1,
        remove: bool = False,
    ) -> None:
        check_search(ratio, steps, interval)
        if method.published and (multiple > 1 or remove or budget != "parameters"):
            raise PruningError("the published ranking knows no other budget, multiples or removal: leave them out")
        self.groups, self.model, self.method = groups, groups.model, method
        self.ratio, self.steps, self.interval = ratio, steps, interval or usual_interval(ratio, steps)
        self.multiple, self.remove = multiple, remove
        self.steps_done = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self.costs = {group.name: _cost(group, budget) for group in groups}
        self.total = sum(self.costs[group.name] * group.size for group in groups)
        self._by_name: dict[str, Group] = {group.name: group for group in groups}
        self._masks = {group.name: torch.ones(group.size, requires_grad=True) for group in groups}
        self._keep = {group.name: torch.ones(group.size, dtype=torch.bool) for group in groups}
        self._evidence = Evidence(groups, method, self._masks)
        self._flips = 0
        self._attachment: Attachment | None = None
        self._shrunk = False
        self._hooks = [self._hook(path, group) for group in groups for path in group.producers]

    # Driving

    def attach(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> "UPop":
        """Hooks into `optimizer.step()`: each one adds the masks' gradients to what is known of the units.

        `scaler` is what scales the loss, where something does. Gradients that are not finite are left out and counted.

        Raises:
            PruningError: where the optimizer does not tell of its steps, or the model is shrunk already.
        """
        self._check_open()
        self._detach()

        def stepped() -> None:
            self._evidence.take(1.0 if scaler is None else scaler.get_scale())
            self.step()

        self._attachment = Attachment(optimizer, stepped, self._evidence.forget)
        self.optimizer = optimizer
        return self

    def penalty(self) -> Tensor | None:
        """The L1 term of learned masks, which `attach` adds by itself; None where masks are not learned."""
        return self._evidence.penalty()

    def step(self) -> None:
        """One training step is over: masks are set where an update is due."""
        self._check_open()
        if self.steps_done >= self.steps:
            raise PruningError(
                f"{self.steps_done} of {self.steps} steps are done and the search is over; call shrink(), or give "
                "UPop(steps=) the number of times the optimizer steps"
            )
        at = self.steps_done
        self.steps_done += 1
        last = self.steps_done == self.steps
        if last or (self.method.progressive and updates_at(at, self.steps, self.interval)):
            # exactly the ratio at the end, whatever the sine rounds to
            self._update(self.ratio if last else ratio_at(at, self.steps, self.ratio))

    # Looking

    @property
    def sparsity(self) -> float:
        """Share of the budget whose masks are marked to go."""
        kept = sum(self.costs[name] * int(keep.sum()) for name, keep in self._keep.items())
        return 1 - kept / self.total

    @property
    def near_target(self) -> bool:
        """Whether the search is over, so that every mask is 0 or 1."""
        return self.steps_done >= self.steps

    def masks(self) -> dict[str, Tensor]:
        """By group, bool: the units that stay, as of the last update."""
        return {name: keep.clone() for name, keep in self._keep.items()}

    def values(self) -> dict[str, Tensor]:
        """By group, float32: what multiplies the units now."""
        return {name: mask.detach().clone() for name, mask in self._masks.items()}

    def widths(self) -> dict[str, int]:
        """By group: how many units stay."""
        return {name: int(keep.sum()) for name, keep in self._keep.items()}

    def statistics(self) -> dict[str, float]:
        """Numbers for a training log: share marked, units that changed sides at the last update, steps left out."""
        return {"sparsity": self.sparsity, "flips": self._flips, "skipped": self._evidence.skipped}

    # Changing

    @contextlib.contextmanager
    def trimmed(self) -> Iterator[None]:
        """Within the block the model is as small as `shrink` would make it now; afterwards the search goes on."""
        values, keep, flips = self.values(), self._keep, self._flips
        self.trim()
        try:
            yield
        finally:
            self._keep, self._flips = keep, flips
            self._evidence.set(values)

    def trim(self) -> None:
        """Sets masks to 0 and 1 at the full ratio."""
        self._check_open()
        if not self.near_target:
            self._update(self.ratio)

    def shrink(self, *, force: bool = False) -> nn.Module:
        """Takes the units away: the model, with smaller tensors and the outputs of the masked one.

        The model has new parameters; make a new optimizer to train it further.

        Args:
            force: also where the search is not over, which cuts at once.

        Raises:
            PruningError: where the search is not over, or it has been called before.
        """
        self._check_open()
        if not self.near_target and not force:
            attached = "" if self.optimizer else " (attached to no optimizer)"
            raise PruningError(
                f"{self.steps_done} of {self.steps} steps done{attached}: shrinking would cut the rest at once; train "
                "on, give UPop(steps=) the number of times the optimizer steps, or call shrink(force=True)"
            )
        self.trim()
        self.release()
        return shrink(self.groups, self._keep)

    def release(self) -> None:
        """Takes hooks off model and optimizer, and with them the masks; the model is dense again."""
        self._detach()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._shrunk = True

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """All that lasts between steps; the model's state is saved separately."""
        return {
            "steps_done": self.steps_done,
            "flips": self._flips,
            "keep": dict(self._keep),
            **self._evidence.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave. ValueError where it is of other groups."""
        keep = state["keep"]
        if {name: tuple(mask.shape) for name, mask in keep.items()} != {g.name: (g.size,) for g in self.groups}:
            raise ValueError("the search is of other groups")
        self._evidence.load_state_dict(state)
        self.steps_done, self._flips = int(state["steps_done"]), int(state["flips"])
        self._keep = {group.name: keep[group.name].bool() for group in self.groups}

    # Parts

    def _update(self, ratio: float) -> None:
        """Ranks all units; those that go get 1 - p_t / p (Algorithm 1, line 12), which is 0 at the end."""
        before, self._keep = self._keep, self._choice(ratio)
        self._flips = sum(int((before[name] != keep).sum()) for name, keep in self._keep.items())
        faded = 1 - ratio / self.ratio
        self._evidence.set({name: keep + faded * ~keep for name, keep in self._keep.items()})

    def _choice(self, ratio: float) -> dict[str, Tensor]:
        scores = self._evidence.scores()
        kinds = {group.name: group.kind for group in self.groups}
        if self.method.published:
            return published_choice(z_scores(scores, kinds), kinds, ratio, PUBLISHED_WEIGHTS)
        if self.method.scope == "unified":
            return self._chosen(z_scores(scores, kinds), ratio)
        parts = {group.part: None for group in self.groups}
        found: dict[str, Tensor] = {}
        for part in parts:
            found |= self._chosen({n: s for n, s in scores.items() if self._by_name[n].part == part}, ratio)
        return {name: found[name] for name in scores}

    def _chosen(self, scores: Scores, ratio: float) -> dict[str, Tensor]:
        total = sum(self.costs[name] * len(score) for name, score in scores.items())
        keep = choose(scores, self.costs, ratio * total, remove=self.remove)
        if self.multiple == 1 or ratio < self.ratio:
            return keep
        return round_widths(scores, self.costs, keep, self.multiple, ratio * total, least=0 if self.remove else 1)

    def _hook(self, path: str, group: Group) -> RemovableHandle:
        layer, mask = self.model.get_submodule(path), self._masks[group.name]

        def multiply(_: nn.Module, __: object, output: Tensor) -> Tensor:
            return output * mask.to(output).repeat(output.shape[-1] // group.size)

        return layer.register_forward_hook(multiply)

    def _check_open(self) -> None:
        if self._shrunk:
            raise PruningError("this search is over and its masks are off; find groups anew to prune further")

    def _detach(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
        self._attachment = None


def _cost(group: Group, budget: Budget) -> int:
    if budget == "mask-count":
        return 1
    if budget == "parameters":
        return group.parameters
    if budget != "macs":
        raise PruningError(f'budget={budget!r}; give "parameters", "macs" or "mask-count"')
    if not group.macs:
        raise PruningError(
            f"{group.name} tells no multiply-adds; give find_groups(model, inputs) inputs that reach all of the model"
        )
    return group.macs
