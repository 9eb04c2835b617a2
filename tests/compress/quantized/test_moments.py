"""Moments of inputs: whatever way a weight is read, equal to those computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.compress.quantized.moments import PRIOR, InputMoments, Moments


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def moments(*rows: Tensor) -> Moments:
    gathered = Moments(rows[0].shape[1])
    for some in rows:
        gathered.add(0, some)
    return gathered


def same(found: Moments, expected: Moments) -> None:
    torch.testing.assert_close(found.mean(), expected.mean())
    torch.testing.assert_close(found.second(), expected.second())


def test_moments_under_the_prior():
    x = torch.randn(3 * PRIOR, 4) + torch.tensor([0.0, 1.0, 2.0, 3.0])
    found = moments(x[:100], x[100:])
    mean = 0.75 * x.mean(0)
    torch.testing.assert_close(found.mean(), mean)
    for about, centred in ((False, x), (True, x - mean)):
        seen = centred.t() @ centred / len(x)
        expected = 0.75 * seen + 0.25 * seen.diagonal().mean() * torch.eye(4)
        torch.testing.assert_close(found.second(about), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("about_mean", [False, True])
@pytest.mark.parametrize("x", [torch.ones(1, 5), torch.zeros(7, 5), torch.rand(100_000, 1).expand(-1, 5)])
def test_second_moments_are_positive_definite(x, about_mean):
    second = moments(x).second(about_mean)
    assert torch.linalg.cholesky_ex(second).info == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers(mode, bias):
    layer, x = nn.Linear(6, 4, bias=bias), torch.randn(3, 5, 6)
    seen = InputMoments({"weight": layer.weight})
    with mode(), seen:
        layer(x)
        layer(x[0])
    same(seen["weight"], moments(x.flatten(0, 1), x[0]))


def test_columns_that_are_read_apart():
    weight, x, y = nn.Parameter(torch.randn(4, 6)), torch.randn(50, 2), torch.randn(9, 4)
    seen = InputMoments({"weight": weight})
    left, right = weight.split([2, 4], 1)
    with seen:
        F.linear(x, left)
        y @ right.detach().t()
    torch.testing.assert_close(seen["weight"].mean(), torch.cat([moments(x).mean(), moments(y).mean()]))
    torch.testing.assert_close(seen["weight"].second(), torch.block_diag(moments(x).second(), moments(y).second()))


def test_cells_read_both_matrices():
    cell, x, h = nn.LSTMCell(3, 2), torch.randn(5, 3), torch.randn(5, 2)
    seen = InputMoments(dict(cell.named_parameters()))
    with seen:
        cell(x, (h, h))
    same(seen["weight_ih"], moments(x))
    same(seen["weight_hh"], moments(h))


def test_convolutions_see_patches():
    conv, x = nn.Conv2d(3, 4, (3, 2), stride=2, padding=(1, 0), bias=False), torch.randn(2, 3, 9, 8)
    seen = InputMoments({"weight": conv.weight})
    with seen:
        y = conv(x)
    samples = y[:, 0].numel()
    mean = seen["weight"].mean() * (samples + PRIOR) / samples
    torch.testing.assert_close(conv.weight.flatten(1) @ mean, y.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_told_is_not_counted():
    weight, grouped = nn.Parameter(torch.randn(4, 4)), nn.Conv2d(4, 4, 3, groups=4)
    x = torch.randn(5, 4)
    seen = InputMoments({"weight": weight, "grouped": grouped.weight})
    with seen:
        x @ weight  # inputs along the rows
        F.linear(x, weight[:2])  # some outputs only
        F.linear(x.double(), weight.double())
        F.linear(x, weight.clone())
        grouped(torch.randn(1, 4, 5, 5))
    assert not seen


def test_inputs_that_never_change_leave_second_moments_that_can_be_inverted():
    constant = torch.full((200_000, 3), 7.3)
    torch.linalg.cholesky(moments(constant).second(about_mean=True))
