"""The fast backward pass equals PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from laconic.models.depthwise import strided_depthwise
from laconic.models.layers import Conv


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 12)])
@pytest.mark.parametrize("padding", [(0, 1, 0, 1), (1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 2, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 3), (5, 2)])
@pytest.mark.parametrize("biased", [True, False])
def test_gradients_are_pytorchs(size, padding, kernel, stride, biased):
    torch.manual_seed(0)
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True) if biased else None
    leaves = [leaf for leaf in (x, weight, bias) if leaf is not None]
    expected = F.conv2d(F.pad(x, padding), weight, bias, stride, groups=4)
    found = strided_depthwise(x, weight, bias, stride, padding)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, above), torch.autograd.grad(expected, leaves, above), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_only_the_gradients_that_are_asked_for(frozen):
    conv = Conv(4, 4, 3, 2, groups=4)
    conv.get_parameter(frozen).requires_grad_(False)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None
    assert [name for name, p in conv.named_parameters() if p.grad is None] == [frozen]


def test_under_autocast_as_the_ordinary_convolution():
    torch.manual_seed(0)
    conv = Conv(8, 8, 3, 2, groups=8, activation="none")
    x = torch.randn(2, 8, 12, 12)
    gradients = []
    for learning in (True, False):  # without a gradient of its own, x takes PyTorch's way
        conv.zero_grad()
        given = x.clone().requires_grad_(learning)
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(given)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        gradients.append((y.detach().clone(), conv.weight.grad.clone(), conv.bias.grad.clone()))
        assert conv.weight.grad.dtype == torch.float32
    torch.testing.assert_close(*gradients)
