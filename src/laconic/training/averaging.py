"""The moving average of a model's weights over the last steps, scored and shipped in place of the latest weights.

Single steps scatter around what is being learned, and the average scatters less (Polyak, Juditsky 1992).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def averaged_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What of a model is averaged: the weights that an optimizer steps, and the statistics of batch norms."""
    weights: list[Tensor] = [weight for group in optimizer.param_groups for weight in group["params"]]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return weights + [held for norm in norms for held in (norm.running_mean, norm.running_var) if held is not None]


class Averaged:
    """Exponential moving averages of tensors that change with each step.

    Args:
        tensors: those of the model; kept, and read at each `update`.
        decay: what an average keeps of itself at a step; it looks back over 1 / (1 - decay) steps.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        self.tensors, self.decay = list(tensors), decay
        self.means = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the tensors as they are after `step` steps; the first averages look back over fewer."""
        decay = min(self.decay, step / (step + 10))
        get_ema_multi_avg_fn(decay)(self.means, [tensor.detach() for tensor in self.tensors], step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the tensors hold their averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def settle(self) -> None:
        """The tensors hold their averages for good."""
        for tensor, mean in zip(self.tensors, self.means, strict=True):
            tensor.copy_(mean)

    @torch.no_grad()
    def _swap(self) -> None:
        for tensor, mean in zip(self.tensors, self.means, strict=True):
            held = tensor.clone()
            tensor.copy_(mean)
            mean.copy_(held)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """To go on from."""
        return {"means": self.means}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Goes on; ValueError where the averages are of other tensors."""
        means = state["means"]
        for mean, held in zip(self.means, means, strict=True):
            if mean.shape != held.shape:
                raise ValueError(f"an average of shape {tuple(held.shape)} for a weight of shape {tuple(mean.shape)}")
            mean.copy_(held)
