"""Moving averages of weights: what they are of, and that a swap is undone."""

import pytest
import torch
from torch import nn

from laconic.training.averaging import Averaged, averaged_of


def test_an_average_looks_back_over_few_steps_at_first_and_then_over_as_many_as_its_decay_says():
    weight = torch.zeros(1)
    averaged = Averaged([weight], 0.9)
    expected, ended = 0.0, []
    for step in range(1, 200):
        weight.fill_(step)
        averaged.update(step)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * step
        ended.append(averaged.means[0].item())
        assert ended[-1] == pytest.approx(expected, rel=1e-5)
    assert ended[0] > 0.9
    assert 199 - ended[-1] == pytest.approx(9, abs=0.1)  # decay / (1 - decay) steps behind a line


def test_in_place_swaps_and_swaps_back_whatever_happens():
    weight = torch.ones(3, requires_grad=True)
    averaged = Averaged([weight], 0.5)
    with torch.no_grad():
        weight.mul_(5)

    def failing() -> None:
        with averaged.in_place():
            assert weight.tolist() == [1, 1, 1]
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert weight.tolist() == [5, 5, 5]
    assert averaged.means[0].tolist() == [1, 1, 1]


def test_statistics_of_batch_norms_are_averaged_and_weights_that_rest_are_not():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.BatchNorm1d(2, track_running_stats=False)
    )
    optimizer = torch.optim.SGD(model[2].parameters(), lr=1.0)
    found = averaged_of(model, optimizer)
    expected = [*model[2].parameters(), model[1].running_mean, model[1].running_var]
    assert len(found) == len(expected)
    assert all(a is b for a, b in zip(found, expected, strict=True))
