"""Looking at a model leaves each of its modules in the mode that it was in."""

import pytest
from torch import nn

from laconic.compress.modes import evaluated


def half_resting() -> nn.Sequential:
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)))
    net[1][0].eval()  # a user's batch norm that must not learn
    return net


def modes(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def test_modules_go_on_in_the_mode_that_they_were_in():
    one, other = half_resting(), half_resting().eval()
    before = modes(one), modes(other)
    with evaluated(one, other):
        assert not any(modes(one) + modes(other))
    assert (modes(one), modes(other)) == before
    assert True in before[0]
    assert False in before[0]


def test_so_they_do_where_the_look_fails():
    net = half_resting()
    before = modes(net)
    with pytest.raises(KeyError), evaluated(net):
        raise KeyError
    assert modes(net) == before
