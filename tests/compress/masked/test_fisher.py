"""Pruning by Adam's second moments."""

import pytest
import torch
from torch import nn

from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.schedule import Cubic
from laconic.errors import LaconicWarning, PruningError


def test_a_large_weight_that_does_nothing_goes_first():
    """The second input is a hundred times smaller, so that its weight may well be ten times larger."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 10.0]]))
    pruner = Pruner(model, Fisher(0.5, schedule=Cubic(start=5, end=6)), steps=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    pruner.attach(optimizer)
    inputs = torch.randn(64, 2) * torch.tensor([1.0, 0.01])
    for _ in range(10):
        optimizer.zero_grad()
        (model(inputs) - torch.randn(64, 1)).square().mean().backward()
        optimizer.step()
    assert pruner.finalize().weight[0, 0] != 0
    assert model.weight[0, 1] == 0


@pytest.mark.parametrize("attach", [False, True])
def test_without_second_moments_it_says_what_it_needs(attach):
    model = nn.Linear(3, 3)
    pruner = Pruner(model, Fisher(0.5), steps=4)
    if attach:
        with pytest.raises(PruningError, match="which SGD lacks: attach the pruner to an Adam"):
            pruner.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(PruningError, match="attach the pruner to an Adam"):
        pruner.finalize(force=True)


def test_weights_that_are_not_trained_are_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    pruner = Pruner(model, Fisher(0.5), steps=4)
    with pytest.raises(PruningError, match=r"0\.weight has none"):
        pruner.attach(torch.optim.Adam(model[1].parameters()))


def test_weights_that_no_loss_reads_keep_their_mask():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    pruner = Pruner(model, Fisher(0.5, schedule=Cubic(start=2, end=3)), steps=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    pruner.attach(optimizer)

    def train() -> None:
        for _ in range(4):
            model[1](torch.randn(8, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    with pytest.warns(LaconicWarning, match=r"^0\.weight: never had a gradient, so 50% of the weights"):
        train()
    kept = pruner.masks()
    assert kept["0.weight"].all()
    assert int(kept["1.weight"].sum()) == 9 - 4
    assert pruner.near_target


def test_scopes_that_are_not_possible():
    with pytest.raises(PruningError, match="scope = 'distribution'; give 'blind' or 'uniform'"):
        Fisher(0.5, "distribution")
