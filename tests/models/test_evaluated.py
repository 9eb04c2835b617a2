"""A view of a module in evaluation mode: the same numbers, nothing of the module touched."""

import pytest
import torch
from torch import nn

from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.models.evaluated import evaluated


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Sequential(nn.LSTM(8, 5)))


def masks(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__.endswith("Mask")]


@pytest.mark.parametrize("method", [None, Supermask(0.5, init=0.3), Frozen()])
def test_a_view_says_what_the_module_says_in_evaluation_and_leaves_it_alone(method):
    model = net()
    if method is not None:
        Pruner(model, method, steps=10)
    for mask in masks(model):
        with torch.no_grad():
            for gates in mask.parameters():
                gates.copy_(torch.randn_like(gates))
    model.train()
    x = torch.rand(3, 6)
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = evaluated(model)(x)[0]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(found, model.eval()(x)[0], rtol=0, atol=0)


def test_a_view_shares_memory_and_a_finished_module_is_its_own_view():
    model = net()
    view = evaluated(model)
    assert view is not model
    assert type(view[0]) is nn.Linear
    assert view[0].weight is model[0].weight
    assert evaluated(model.eval()) is model


def test_as_drawn_a_supermask_is_that_of_the_step():
    """What is drawn for the view is what the module itself uses afterwards."""
    model = nn.Sequential(nn.Linear(20, 20))
    Pruner(model, Supermask(0.5, init=0.3), steps=10)
    view = evaluated(model.train(), as_drawn=True)
    assert torch.equal(view[0].weight, model[0].weight)
    assert not torch.equal(view[0].weight, evaluated(model)[0].weight)


def test_a_view_made_in_inference_mode_does_not_spoil_a_training_step():
    model = nn.Sequential(nn.Linear(4, 4))
    Pruner(model, Supermask(0.5), steps=10)
    model.train()
    with torch.inference_mode():
        evaluated(model, as_drawn=True)(torch.rand(2, 4))
    model(torch.rand(2, 4)).sum().backward()
    assert model[0].parametrizations.weight.original.grad is not None


def test_shared_modules_stay_shared():
    inner = nn.Linear(3, 3)
    view = evaluated(nn.Sequential(inner, inner))
    assert view[0] is view[1]
