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
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from laconic.compress.attaching import Attachment
from laconic.compress.structured.evidence import Evidence
from laconic.compress.structured.groups import Group, Groups, Kind
from laconic.compress.structured.methods import UPOP, Budget, Method
from laconic.compress.structured.progress import SCHEDULES, check_search, updates_at, usual_interval
from laconic.compress.structured.ranking import KINDS, Scores, choose, published_choice, z_scores
from laconic.compress.structured.shrink import shrink
from laconic.compress.structured.widths import allowed_widths, round_widths
from laconic.errors import PruningError


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
        PruningError: for numbers that no search can have, for a budget that groups do not tell, and for a ratio that is
            out of reach, as each module keeps a unit.
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
        if multiple < 1:
            raise PruningError(f"multiple={multiple}: give what widths are multiples of, at least 1")
        if method.published and (multiple > 1 or remove or budget != "parameters"):
            raise PruningError("the published ranking knows no other budget, multiples or removal: leave them out")
        self.groups, self.model, self.method = groups, groups.model, method
        self.ratio, self.steps, self.interval = ratio, steps, interval or usual_interval(ratio, steps)
        self.multiple, self.remove = multiple, remove
        self.steps_done = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self.costs = {group.name: group.cost(budget) for group in groups}
        self.total = sum(self.costs[group.name] * group.size for group in groups)
        self._by_name: dict[str, Group] = {group.name: group for group in groups}
        self._order = [group.name for kind in KINDS for group in groups if group.kind == kind]  # settles ties
        if not method.published:  # which keeps more than it was asked to, as published
            self._refuse_unreachable()
        self._masks = {group.name: _ones(groups.model, group) for group in groups}
        self._keep = {group.name: torch.ones(group.size, dtype=torch.bool) for group in groups}
        self._evidence = Evidence(groups, method, self._masks)
        self._reached, self._flips = 0.0, 0
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
            scale = 1.0 if scaler is None else scaler.get_scale()
            self._evidence.add_penalty(scale)
            self._step(scale)

        self._attachment = Attachment(optimizer, stepped, self._evidence.forget)
        self.optimizer = optimizer
        return self

    def penalty(self) -> Tensor | None:
        """The L1 term of learned masks, for loops that add it to their own loss and step by themselves; None where
        masks are not learned. `attach` adds it by itself.
        """
        return self._evidence.penalty()

    def step(self) -> None:
        """One training step is over: the gradients of its masks are taken, and masks are set where that is due.

        Raises:
            PruningError: after more steps than announced, or where the last one has come and no gradient has.
        """
        self._step()

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
        """Numbers for a training log.

        sparsity: share of the budget that is marked; ratio: p_t, what was asked of the last update; flips: units that
        changed sides in it; skipped: steps left out, as a gradient was not finite.
        """
        found = {"sparsity": self.sparsity, "ratio": self._reached}
        return {**found, "flips": self._flips, "skipped": self._evidence.skipped}

    # Changing

    @contextlib.contextmanager
    def trimmed(self) -> Iterator[None]:
        """Within the block the model is as small as `shrink` would make it now; afterwards the search goes on."""
        values, before = self.values(), (self._keep, self._reached, self._flips)
        self.trim()
        try:
            yield
        finally:
            self._keep, self._reached, self._flips = before
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
            PruningError: where the search is not over, it has been called before, or nothing is known of the units.
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
            "reached": self._reached,
            "flips": self._flips,
            "keep": dict(self._keep),
            **self._evidence.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave. ValueError where it is of other groups, another method or more steps."""
        keep, steps_done = state["keep"], int(state["steps_done"])
        if {name: tuple(mask.shape) for name, mask in keep.items()} != {g.name: (g.size,) for g in self.groups}:
            raise ValueError("the search is of other groups")
        if not 0 <= steps_done <= self.steps:
            raise ValueError(f"the search has done {steps_done} steps, this one has {self.steps}")
        self._evidence.load_state_dict(state)
        self.steps_done, self._reached, self._flips = steps_done, float(state["reached"]), int(state["flips"])
        self._keep = {group.name: keep[group.name].bool() for group in self.groups}

    # Parts

    def _step(self, scale: float = 1.0) -> None:
        self._check_open()
        if self.steps_done >= self.steps:
            raise PruningError(
                f"{self.steps_done} of {self.steps} steps are done and the search is over; call shrink(), or give "
                "UPop(steps=) the number of times the optimizer steps"
            )
        self._evidence.take(scale)
        at = self.steps_done
        last = at == self.steps - 1
        if last:
            self._update(self.ratio)  # exactly, whatever the sine rounds to
        elif self._evidence.known and self._due(at):
            self._update(SCHEDULES[self.method.schedule](at, self.steps, self.ratio))
        self.steps_done += 1

    def _due(self, at: int) -> bool:
        return self.method.progressive and updates_at(at, self.steps, self.interval, self.method.first_step)

    def _update(self, ratio: float) -> None:
        """Ranks all units; those that go get 1 - p_t / p (Algorithm 1, line 12), which is 0 at the end."""
        if not self._evidence.known:
            skipped = self._evidence.skipped
            raise PruningError(
                f"nothing is known of the units: no gradient has reached a mask, {skipped} steps left out as theirs "
                "were not finite; train this very model, attached, before its units can be chosen"
            )
        before, self._keep = self._keep, self._choice(ratio)
        self._reached = ratio
        self._flips = sum(int((before[name] != keep).sum()) for name, keep in self._keep.items())
        faded = 1 - ratio / self.ratio
        self._evidence.set({name: keep + faded * ~keep for name, keep in self._keep.items()})

    def _choice(self, ratio: float) -> dict[str, Tensor]:
        known = self._evidence.scores()
        scores = {name: known[name] for name in self._order}
        kinds = {group.name: group.kind for group in self.groups}
        if self.method.published:
            weights: dict[Kind, int] = {"attention": self.method.attention_weight, "feed_forward": 1}
            found = published_choice(z_scores(scores, kinds), kinds, ratio, weights)
        elif self.method.scope == "unified":
            found = self._chosen(z_scores(scores, kinds), ratio)
        else:
            found = {}
            for names in self._rivals().values():
                found |= self._chosen({name: scores[name] for name in names}, ratio)
        return {group.name: found[group.name] for group in self.groups}

    def _rivals(self) -> dict[str, list[str]]:
        """Names of the groups that share a budget, by what it is of."""
        shared: dict[str, list[str]] = {}
        for name in self._order:
            of = "the model" if self.method.scope == "unified" else self._by_name[name].part
            shared.setdefault(of, []).append(name)
        return shared

    def _refuse_unreachable(self) -> None:
        """PruningError where more than one unit would be missing to the ratio with every module at its least."""
        for of, names in self._rivals().items():
            sizes = {name: self._by_name[name].size for name in names}
            least = {name: allowed_widths(size, self.multiple, self._least)[0] for name, size in sizes.items()}
            total = sum(self.costs[name] * size for name, size in sizes.items())
            most = sum(self.costs[name] * (size - least[name]) for name, size in sizes.items())
            if self.ratio * total - most > self.multiple * max(self.costs[name] for name in names):
                raise PruningError(
                    f"ratio={self.ratio}: at most {most / total:.4g} of {of} can go where each module keeps a unit, or "
                    f"{self.multiple} of them; give a smaller ratio, a smaller multiple or remove=True"
                )

    @property
    def _least(self) -> int:
        """Units that each module keeps."""
        return 0 if self.remove else 1

    def _chosen(self, scores: Scores, ratio: float) -> dict[str, Tensor]:
        total = sum(self.costs[name] * len(score) for name, score in scores.items())
        keep = choose(scores, self.costs, ratio * total, least=self._least)
        if self.multiple == 1 or ratio < self.ratio:
            return keep
        return round_widths(scores, self.costs, keep, self.multiple, ratio * total, least=self._least)

    def _hook(self, path: str, group: Group) -> RemovableHandle:
        layer, mask = self.model.get_submodule(path), self._masks[group.name]

        def multiply(_: nn.Module, __: object, output: Tensor) -> Tensor:
            # in float32, so that half precision rounds the output once and the mask's gradient not at all
            factor = mask.to(output.device).repeat(output.shape[-1] // group.size)
            return (output * factor).to(output.dtype)

        return layer.register_forward_hook(multiply)

    def _check_open(self) -> None:
        if self._shrunk:
            raise PruningError("this search is over and its masks are off; find groups anew to prune further")

    def _detach(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
        self._attachment = None


def _ones(model: nn.Module, group: Group) -> Tensor:
    """A mask that lets all through, where the units are computed."""
    device = model.get_submodule(group.producers[0]).get_parameter("weight").device
    return torch.ones(group.size, device=device, requires_grad=True)
