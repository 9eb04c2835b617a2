"""The arithmetic of masks and gates: the kernels give what PyTorch gives, at any size, layout and number of threads."""

import pytest
import torch
from torch import nn

from laconic.compress import piecewise
from laconic.compress.masked import gating
from laconic.compress.masked.gating import (
    add_slope,
    count_open,
    draw_bernoulli,
    mixed,
    multiply,
    sigmoid_slope,
    straight_through,
)
from laconic.compress.masked.masks import LearnedMask
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.machine import threads as sharing
from laconic.native.library import library

SHAPE = 331, 1001  # over gating.LEAST, and a multiple of nothing


@pytest.fixture(params=["PyTorch", "C"])
def kernels(request, monkeypatch) -> str:
    """Once without the kernels, once with them."""
    if request.param == "PyTorch":
        monkeypatch.setattr(gating, "library", lambda: None)
    elif library() is None:
        pytest.skip("no native library here")
    return request.param


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """Names of the kernels that were run; skips where there are none."""
    if library() is None:
        pytest.skip("no native library here")
    names: list[str] = []

    def noted(kernel, *arguments):
        names.append(kernel.__name__.removeprefix("gating_"))
        return sharing.run(kernel, *arguments)

    monkeypatch.setattr(gating, "run", noted)
    return names


@pytest.fixture(scope="module")
def gates() -> torch.Tensor:
    """From surely off to surely on."""
    spread = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 8
    spread[0, :9] = torch.tensor([0.0, -0.0, 15.0, 20.0, 86.0, -200.0, torch.inf, -torch.inf, torch.nan])
    return spread


@pytest.mark.parametrize("probability", [0.0, 0.0066, 0.5, 0.9933, 1.0])
def test_draws_have_the_asked_frequency(probability, kernels):
    draws = draw_bernoulli(torch.full((1001, 1001), probability).logit(), seed=0)
    deviation = 5 * (probability * (1 - probability) / draws.numel()) ** 0.5
    assert abs(draws.double().mean().item() - probability) <= deviation + 1 / 65536


def test_noise_is_splitmix64_of_counters(kernels):
    first, mask, found = 2**62 - 3, 2**64 - 1, []
    for counter in range(first, first + 5):
        z = counter * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        found.append(z ^ z >> 31)
    counters = torch.arange(gating.LEAST + 1)
    words = mixed(counters, first)
    assert words[:5].tolist() == [z - (z >> 63 << 64) for z in found]
    assert torch.equal(mixed(counters[:-3], first + 3), words[3:])


def test_blocks_of_a_large_mask_draw_apart(kernels, monkeypatch):
    monkeypatch.setattr(gating, "BLOCK", 1 << 16)
    drawn = draw_bernoulli(torch.zeros(256, 1024), seed=3).view(4, -1).double()
    correlations = torch.corrcoef(drawn)
    assert ((correlations - torch.eye(4)).abs() < 5 / 256).all()  # five deviations of 65536 pairs
    following = torch.corrcoef(torch.stack([drawn[0], draw_bernoulli(torch.zeros(256, 1024), seed=4).view(4, -1)[0]]))
    assert abs(following[0, 1]) < 5 / 256


@pytest.mark.parametrize("threads", [1, 3])
def test_both_draw_alike(gates, ran, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    drawn = draw_bernoulli(gates, seed=5)
    assert set(ran) == {"mix", "draw"}
    monkeypatch.setattr(gating, "library", lambda: None)
    # a rounding apart, thresholds differ by a hundredth of a level, and one draw in 65536 is at its threshold
    assert (drawn != draw_bernoulli(gates, seed=5)).sum() <= 2


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
def test_both_give_the_same_gradients(gates, ran, source, threads, monkeypatch):
    noise = torch.Generator().manual_seed(1)
    grad = torch.randn(SHAPE, generator=noise).to(source)
    weight = torch.randn(SHAPE, generator=noise)
    keep = torch.rand(SHAPE, generator=noise) < 0.5
    monkeypatch.setattr(sharing, "GRAIN", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = []
    for one in (library(), None):
        monkeypatch.setattr(gating, "library", lambda one=one: one)
        grad_weight, grad_gates = torch.full((2, *SHAPE), torch.nan).unbind(0)
        straight_through(grad, weight, gates, keep, grad_weight, grad_gates, slope=True)
        pulled = torch.ones(SHAPE)
        add_slope(gates, torch.tensor(0.3), pulled)
        found.append((grad_weight, grad_gates, pulled))
    assert ran == ["gradients_bfloat16" if source == torch.bfloat16 else "gradients_float", "add_slope"]
    slope = torch.sigmoid(gates.double()) * torch.sigmoid(-gates.double())
    for grad_weight, grad_gates, pulled in found:
        assert torch.equal(grad_weight, grad * keep)
        exact = grad.double() * weight.double() * slope
        torch.testing.assert_close(grad_gates.double(), exact, rtol=2e-6, atol=1e-36, equal_nan=True)
        torch.testing.assert_close(pulled.double(), 1 + 0.3 * slope, rtol=2e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("source", "target"),
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_both_multiply_alike(source, target, ran, monkeypatch):
    noise = torch.Generator().manual_seed(2)
    x = torch.randn(SHAPE, generator=noise).to(source)
    # what rounds to even, up into the next power and into infinity; what is no number, whatever its bits
    special = [
        1 + 2**-8,
        1 + 3 * 2**-8,
        2 - 2**-9,
        torch.finfo(torch.float32).max,
        torch.inf,
        -torch.inf,
        torch.nan,
        1e-40,
    ]
    x[0, : len(special)] = x[1, : len(special)] = torch.tensor(special).to(source)
    if source == torch.float32:
        x[2, :2] = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)
    keep = torch.rand(SHAPE, generator=noise) < 0.5
    keep[0], keep[1], keep[2] = True, False, True
    product = multiply(x, keep, torch.empty(SHAPE, dtype=target))
    assert len(ran) == 1
    monkeypatch.setattr(gating, "library", lambda: None)
    plain = multiply(x, keep, torch.empty(SHAPE, dtype=target))
    torch.testing.assert_close(product, plain, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_both_count_alike(gates, ran, threads, monkeypatch):
    monkeypatch.setattr(sharing, "GRAIN", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert count_open(gates) == (gates > 0).sum()
    assert ran == ["count_open"]
    monkeypatch.setattr(gating, "library", lambda: None)
    assert count_open(gates) == (gates > 0).sum()
    assert count_open(gates).dtype == torch.float64


@pytest.mark.parametrize("case", ["small", "transposed", "double", "bypass", "meta", "subclass"])
def test_what_has_no_kernel_goes_to_pytorch(case, ran):
    shape = (4, 4) if case == "small" else (400, 400)
    made = torch.randn(3, *shape, dtype=torch.float64 if case == "double" else torch.float32)
    grad, weight, gates = made.to("meta" if case == "meta" else "cpu").unbind(0)
    if case == "transposed":
        grad = grad.t()
    if case == "subclass":  # its numbers may be anywhere
        grad = grad.as_subclass(type("Elsewhere", (torch.Tensor,), {}))
    grad_gates, slope = torch.empty_like(gates), case != "bypass"
    keep = torch.ones(shape, dtype=torch.bool, device=gates.device)
    straight_through(grad, weight, gates, keep, torch.empty_like(weight) if slope else None, grad_gates, slope)
    assert not any(name.startswith("gradients") for name in ran)
    if case != "meta":
        torch.testing.assert_close(grad_gates, sigmoid_slope(gates, grad * weight) if slope else grad * weight)


def test_shapes_that_do_not_fit_are_pytorchs_to_refuse(kernels):
    """A kernel would read on behind the smaller one."""
    with pytest.raises(RuntimeError, match="must match"):
        LearnedMask(torch.ones(300, 300), 0.0)(torch.randn(512, 512))


@pytest.mark.parametrize("size", [64, 512])
def test_a_draw_overwritten_before_its_backward_pass_is_noticed(size, kernels):
    weight = torch.ones(size, size, requires_grad=True)
    mask = LearnedMask(weight, 0.0)
    first = mask(weight)
    mask.redraw()
    mask(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.sum().backward()


def test_a_masked_module_is_exported(kernels):
    """Where tensors have no numbers yet."""
    linear = nn.Linear(512, 512)
    Pruner(linear, Supermask(0.5), steps=2)
    x = torch.randn(2, 512)
    with torch.no_grad():
        exported = torch.export.export(linear.eval(), (x,))
        torch.testing.assert_close(exported.module()(x), linear(x))


def test_a_training_goes_the_same_way(monkeypatch):
    """Of masks large enough for kernels, and with autocast's products."""
    if library() is None:
        pytest.skip("no native library here")
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr(gating, "LEAST", least)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        pruner = Pruner(model, Supermask(0.8), steps=60).attach(optimizer)
        x = torch.randn(256, 20)
        losses = []
        for _ in range(60):
            loss = (model(x) - x[:, :1] * x[:, 1:2]).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        found.append((torch.stack(losses), pruner.masks()))
    (fast, fast_masks), (plain, plain_masks) = found
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(fast_masks[name], plain_masks[name]) for name in plain_masks)


@pytest.mark.parametrize("shape", [(701, 300), (3, 70_001), (64, 64, 7, 7)])
def test_pieces_change_nothing(shape, kernels, monkeypatch):
    """Draws and gradients of a tensor do not depend on how much of it is worked on at a time, nor on its layout."""
    torch.manual_seed(0)
    weight, gates, grad = torch.randn(3, *shape).unbind(0)
    if len(shape) == 4:
        weight = weight.to(memory_format=torch.channels_last)
    found = []
    for piece in (1 << 12, 1 << 30):
        monkeypatch.setattr(piecewise, "PIECE", piece)
        monkeypatch.setattr(sharing, "GRAIN", piece)
        monkeypatch.setattr(gating, "LEAST", 1)
        mask = LearnedMask(weight, 0.0)
        mask.seed.fill_(7)
        with torch.no_grad():
            mask.gates.copy_(gates)
        leaf = weight.clone().requires_grad_()
        masked = mask(leaf)
        masked.backward(grad.transpose(0, 1).contiguous().transpose(0, 1))
        found.append((masked.detach(), leaf.grad, mask.gates.grad))
    slope = torch.sigmoid(gates) * torch.sigmoid(-gates)
    keep = found[0][0] != 0
    for masked, grad_weight, grad_gates in found:
        assert torch.equal(masked, weight * keep)
        assert torch.equal(grad_weight, grad * keep)
        torch.testing.assert_close(grad_gates, grad * weight * slope)
    assert count_open(gates) == (gates > 0).sum()
