"""A small network that learns a task quickly and cannot do it with its weights gone."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modules import MODULES


class Task:
    """Which of ten numbers is the largest, for 256 examples; a dense network is always right after 400 steps."""

    def __init__(self) -> None:
        noise = torch.Generator().manual_seed(0)
        self.x = torch.randn(256, 64, generator=noise)
        self.y = self.x[:, :10].argmax(1)

    def net(self) -> nn.Sequential:
        """Linear layers 0, 2 and 4 of 8192, 16384 and 1280 weights."""
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        ).requires_grad_()

    def loss(self, model: nn.Module) -> Tensor:
        return F.cross_entropy(model(self.x), self.y)

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(model).backward()
            optimizer.step()

    def accuracy(self, model: nn.Module) -> float:
        model.eval()
        return (model(self.x).argmax(1) == self.y).float().mean().item()


@pytest.fixture(scope="session")
def task() -> Task:
    return Task()


@pytest.fixture
def adam():
    return lambda model: torch.optim.Adam(model.parameters(), lr=1e-3)


@pytest.fixture(params=MODULES)
def case(request) -> tuple[nn.Module, Any, list[str]]:
    """A module, an input and the names of its matrices."""
    torch.manual_seed(0)
    make, draw, names = MODULES[request.param]
    return make(), draw(), names
