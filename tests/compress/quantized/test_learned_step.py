"""Learned steps: codes, first steps and gradients are those of the published formulas; zeros stay; rows and pieces."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

from laconic.compress import piecewise, stacking
from laconic.compress.quantized.learned_step import (
    LearnedStep,
    covering_step,
    first_step,
    largest_code,
    nearest,
    round_to_steps,
)


@pytest.fixture(scope="module")
def values(golden) -> dict:
    return json.loads((golden / "quantized" / "learned_steps.json").read_text())


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("per_row", [False, True])
def test_codes_of_covering_steps_are_the_golden_ones(values, bits, per_row):
    weight = torch.tensor(values["weights"], dtype=torch.float64)
    most = largest_code(bits)
    step = covering_step(weight, most, per_row=per_row)
    expected = values[f"symmetric_int{bits}_per_{'row' if per_row else 'tensor'}"]
    torch.testing.assert_close(step.flatten(), torch.tensor(expected["scale"], dtype=torch.float64), rtol=1e-12, atol=0)
    rounded = nearest(weight, step, most)
    assert torch.equal((rounded / step).round(), torch.tensor(expected["codes"], dtype=torch.float64))
    error = float((rounded - weight).norm() / weight.norm())
    assert math.isclose(error, expected["relative_error"], rel_tol=1e-12)


@pytest.mark.parametrize("case", ["lsq_signed3", "lsq_signed4", "lsq_symmetric4"])
@pytest.mark.parametrize("held", [False, True])
def test_first_steps_and_gradients_are_the_golden_ones(values, case, held):
    given = values[case]
    weight = torch.tensor(given["v"], dtype=torch.float64).unsqueeze(0).requires_grad_()
    most, least = given["Qp"], -given["Qn"]
    step = first_step(weight.detach(), most).requires_grad_()
    assert math.isclose(step.item(), given["s_init_nonzero_mean"], rel_tol=1e-12)
    rounded = round_to_steps(weight, step, most, least, held=held)
    torch.testing.assert_close(rounded[0], torch.tensor(given["v_hat"], dtype=torch.float64), rtol=1e-12, atol=0)
    rounded.backward(torch.tensor(given["upstream"], dtype=torch.float64).unsqueeze(0))
    for_weight = torch.tensor(given["grad_v_masked" if held else "grad_v"], dtype=torch.float64)
    torch.testing.assert_close(weight.grad[0], for_weight, rtol=1e-12, atol=1e-15)
    assert math.isclose(step.grad.item(), given["grad_s"], rel_tol=1e-12)


def plain(weight: Tensor, step: Tensor, most: int) -> Tensor:
    """The same out of PyTorch's own operations, rounding as if it were the identity."""
    exact = (weight / step).clamp(-most, most)
    return (exact + (exact.round() - exact).detach()) * step


@pytest.mark.parametrize("shape", [(7, 50), (50, 7), (6, 1, 3, 3), (5, 4, 3, 3)])
@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("per_row", [False, True])
def test_gradients_are_those_of_plain_operations_at_any_layout_and_piece(shape, bits, per_row, monkeypatch):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64) * (torch.rand(shape) < 0.6)
    grad, most = torch.randn(shape, dtype=torch.float64), largest_code(bits)
    step = 0.7 * first_step(weight, most, per_row=per_row)
    one, other = (step.clone().requires_grad_() for _ in range(2))
    mine, theirs = (weight.clone().requires_grad_() for _ in range(2))
    monkeypatch.setattr(piecewise, "PIECE", 11)
    turned = grad.transpose(0, 1).contiguous().transpose(0, 1)
    found = round_to_steps(mine, one, most)
    found.backward(turned)
    expected = plain(theirs, other, most)
    expected.backward(grad)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    counts = (weight != 0).flatten(1).sum(1).view(step.shape) if per_row else (weight != 0).sum()
    torch.testing.assert_close(one.grad, other.grad / (counts * most).sqrt())


def test_rows_without_non_zeros_have_a_step_of_one():
    weight = torch.tensor([[0.0, 0.0], [0.3, -0.1]])
    for rule in (first_step, covering_step):
        assert rule(weight, 3, per_row=True)[0].item() == 1
        assert rule(torch.zeros(2, 2), 3).item() == 1
    assert torch.equal(nearest(weight, covering_step(weight, 3, per_row=True), 3)[0], weight[0])


def test_the_first_step_is_learned_from_non_zeros_and_clips_nothing_needlessly():
    weight = torch.zeros(40, 40)
    weight[:4, :5] = torch.linspace(-1, 1, 20).view(4, 5) ** 3
    for bits, rule in {2: first_step, 8: covering_step}.items():
        quantiser = LearnedStep(weight, bits)
        quantiser.begin(weight)
        torch.testing.assert_close(quantiser.step, rule(weight, largest_code(bits)))


def test_a_quantiser_that_has_not_begun_passes_weights_and_stays_in_the_graph():
    layer = nn.Linear(3, 4)
    before = layer.weight.detach().clone()
    quantiser = LearnedStep(layer.weight, 2)
    stacking.install(layer, "weight", quantiser)
    x = torch.randn(2, 3)
    layer(x).sum().backward()
    assert torch.equal(layer.weight, before)
    assert stacking.original(layer, "weight").grad.abs().sum() > 0
    assert quantiser.log_step.grad is None
    assert layer.weight.grad_fn.next_functions[1][0].variable is quantiser.log_step
