"""LearnedMask against the published code's numbers, and its draw."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from laconic.compress.masked import masks
from laconic.compress.masked.gating import sigmoid_slope
from laconic.compress.masked.masks import LearnedMask


@pytest.fixture(scope="module")
def arrays(golden):
    with np.load(golden / "smp" / "e_supermask.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def golden_mask(arrays, slope: bool) -> LearnedMask:
    mask = LearnedMask(arrays["W"], 0.0, slope=slope)
    with torch.no_grad():
        mask.gates.copy_(arrays["G"])
    return mask


@pytest.mark.parametrize(("variant", "slope"), [("default", True), ("bypass", False)])
def test_weights_and_gradients_agree_with_the_published_code(arrays, variant, slope, monkeypatch):
    monkeypatch.setattr(masks, "draw_bernoulli", lambda gates, seed, out: arrays["U"][0] < torch.sigmoid(gates))
    mask = golden_mask(arrays, slope)
    weight, bias = arrays["W"].clone().requires_grad_(), arrays["b"].clone().requires_grad_()
    effective = mask(weight)
    assert torch.equal(effective, arrays[f"{variant}_W_eff_train"])
    loss = (arrays["x"] @ effective.t() + bias - arrays["y"]).square().mean()
    loss.backward()
    torch.testing.assert_close(mask.gates.grad, arrays[f"{variant}_dLc_dG"])
    torch.testing.assert_close(weight.grad, arrays[f"{variant}_dLc_dW"])
    torch.testing.assert_close(bias.grad, arrays[f"{variant}_dLc_db"])
    assert torch.equal(mask.eval()(weight), arrays[f"{variant}_W_eff_eval"])


def test_evaluation_rounds_half_to_zero(arrays):
    mask = golden_mask(arrays, True)
    assert torch.equal(mask.keep, arrays["round_sigmoid_G"] > 0)
    with torch.no_grad():
        mask.gates.fill_(0.0)
    assert not mask.keep.any()


def test_one_draw_until_redraw():
    torch.manual_seed(0)
    weight = torch.ones(64, 64)
    mask = LearnedMask(weight, 0.0)
    first = mask(weight).detach()
    assert torch.equal(first, mask(weight))
    mask.eval()
    mask(weight)  # evaluation in between neither uses nor changes the draw
    mask.train()
    assert torch.equal(first, mask(weight))
    mask.redraw()
    assert not torch.equal(first, mask(weight))


def test_draws_do_not_depend_on_the_default_generator():
    """Processes that train one model together agree on the masks while each has a dropout of its own."""
    weight, draws = torch.ones(64, 64), []
    first = LearnedMask(weight, 0.0)
    second = LearnedMask(weight, 0.0)
    second.load_state_dict(first.state_dict())
    for seed, mask in enumerate((first, second)):
        torch.manual_seed(seed)
        for _ in range(3):
            draws.append(mask(weight).detach())
            mask.redraw()
    assert all(torch.equal(a, b) for a, b in zip(draws[:3], draws[3:], strict=True))
    assert not torch.equal(LearnedMask(weight, 0.0)(weight), draws[0])


def test_a_draw_made_in_a_search_serves_the_backward_pass():
    weight = torch.ones(8, 8, requires_grad=True)
    mask = LearnedMask(weight, 0.0)
    with torch.inference_mode():
        searched = mask(weight)
    trained = mask(weight)
    assert torch.equal(trained, searched)
    trained.sum().backward()
    assert torch.equal(weight.grad, trained)


def test_rounding_instead_of_sampling():
    weight = torch.randn(8, 8)
    mask = LearnedMask(weight, 1.0, sampling="round")
    assert torch.equal(mask(weight), weight)


def test_a_spent_gradient_gives_its_memory_to_the_next():
    mask = LearnedMask(torch.ones(9, 9), 1.0)
    first = None
    for step in range(3):
        mask(torch.full((9, 9), step + 1.0)).sum().backward()
        mask(torch.ones(9, 9)).sum().backward()  # accumulation: this one must not overwrite the first
        torch.testing.assert_close(mask.gates.grad, (step + 2) * sigmoid_slope(mask.gates.detach(), torch.ones(9, 9)))
        first = first or mask.gates.grad.data_ptr()
        assert mask.gates.grad.data_ptr() == first
        mask.forget_gradient()
        assert mask.gates.grad is None


def test_autocast_gets_products_in_its_own_type_and_the_same_gradients():
    torch.manual_seed(0)
    weight, x = torch.randn(400, 400), torch.randn(5, 400)
    found = []
    for products in (True, False):
        mask = LearnedMask(weight, 0.5)
        mask.seed.fill_(3)
        mask.products = products
        leaf = weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            masked = mask(leaf)
            y = F.linear(x, masked)
        assert masked.dtype == (torch.bfloat16 if products else torch.float32)
        assert mask(leaf).dtype == torch.float32
        y.square().sum().backward()
        found.append((y, leaf.grad, mask.gates.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
