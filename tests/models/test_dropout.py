"""Dropout drops the asked share, keeps the mean, and its gradient passes where the value did."""

import pytest
import torch

from laconic.models.dropout import dropout


@pytest.mark.parametrize("p", [0.1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_share_scale_and_gradient(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(501, 401, dtype=dtype, requires_grad=True)
    y = dropout(x, p)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=5e-3)
    assert y.float().mean().item() == pytest.approx(1, abs=2e-2)
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-2)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y)


def test_elements_are_independent_and_draws_follow_the_seed():
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(200_000), 0.5) == 0).float() - 0.5
    for lag in range(1, 9):  # four elements share one random word
        assert abs((dropped[lag:] * dropped[:-lag]).mean().item()) < 2e-3
    torch.manual_seed(0)
    assert torch.equal((dropout(torch.ones(200_000), 0.5) == 0).float() - 0.5, dropped)


def test_nothing_happens_outside_training_or_at_zero():
    x = torch.randn(7, 3)
    assert dropout(x, 0.5, training=False) is x
    assert torch.equal(dropout(x, 0.0), x)
    assert dropout(x[:0], 0.5).shape == (0, 3)
