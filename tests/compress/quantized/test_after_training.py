"""Quantising after training: on the grid, zeros kept, better than plain rounding on inputs that it has not seen."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic import store
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.quantized.after_training import entropy, quantize, round_rows
from laconic.errors import ConfigError, PruningError


class Net(nn.Module):
    """Convolutions, one of them depthwise, an LSTM cell, tied matrices, and a parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.cell = nn.LSTMCell(6, 8)
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)
        self.outer.weight = self.inner.weight
        self.output = nn.Linear(8, 11)
        self.unread = nn.Parameter(torch.ones(3))
        self.drop = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu6(self.depthwise(F.relu6(self.conv(images)))).mean((2, 3))
        state = self.cell(x)
        hidden = self.drop(self.cell(x, state)[0])
        return self.output(torch.tanh(self.outer(torch.tanh(self.inner(hidden)))))


def pictures(count: int, seed: int) -> Tensor:
    """Neighbouring pixels alike, brighter than zero on average."""
    noise = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=16, mode="bilinear") + 0.5


BATCHES = [pictures(40, 1), pictures(40, 2)]


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3)
            if parameter.ndim > 1 and "conv" not in name:
                parameter.mul_(torch.rand_like(parameter) < 0.6)
    return model


def distance(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        a, b = (model.eval()(images) for model in (one, other))
    a, b = (y - y.mean(-1, keepdim=True) for y in (a, b))
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize("target", [{"bits": 4.0}, {"error": 0.02}])
def test_weights_lie_on_their_grids_and_zeros_stay(target: dict[str, float], tmp_path) -> None:
    model, before = net(), net()
    steps = quantize(model, model, BATCHES, **target)
    assert set(steps) == {name for name, _ in model.named_parameters()} - {"unread"}  # and no "outer.weight", a tie
    for (name, now), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert not now[old == 0].any()
        assert torch.equal(now, old) == (name == "unread")
        if name in steps:
            assert torch.equal(now, torch.round(now / steps[name]) * steps[name])
            assert not torch.signbit(now[now == 0]).any()
            assert np.float32(steps[name]) == steps[name]
    store.save(model, tmp_path / "file", values="compact", steps=steps)
    packed = store.load(tmp_path / "file")
    assert all(
        np.array_equal(packed[name], steps_kept.detach())
        for name, steps_kept in model.named_parameters()
        if name != "unread"
    )


def test_equal_input_gives_equal_weights() -> None:
    one, other = net(), net()
    torch.manual_seed(5)
    first = quantize(one, one, BATCHES, bits=4)
    torch.manual_seed(6)
    assert quantize(other, other, BATCHES, bits=4) == first
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_bits_are_kept_to() -> None:
    model, before = net(), net()
    steps = quantize(model, model, BATCHES, bits=4.5)
    parameters = dict(model.named_parameters())
    spent = sum(entropy(torch.round(parameters[name] / step)) for name, step in steps.items())
    non_zeros = sum(int(p.count_nonzero()) for name, p in before.named_parameters() if name in steps)
    assert spent / non_zeros == pytest.approx(4.5, abs=0.15)


def test_calibrated_beats_plain_rounding_at_equal_bits_on_other_inputs() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(6, 24)  # inputs of 24 columns have 6 directions, and a mean

    def inputs(count: int) -> Tensor:
        return torch.randn(count, 6) @ mixing + 0.1 * torch.randn(count, 24) + 1

    def model(scale: float = 1.0) -> nn.Sequential:
        torch.manual_seed(1)
        made = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 40))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(torch.rand_like(parameter) < 0.5)
        return made

    original, calibrated, plain = model(), model(), model()
    steps = quantize(calibrated, calibrated, [inputs(5000)], bits=4)
    values = [p.detach() for p in plain.parameters()]

    def codes(factor: float) -> list[Tensor]:
        return [torch.round(v / (factor * v[v != 0].square().mean().sqrt())) for v in values]

    bits = sum(entropy(torch.round(p / step)) for p, step in zip(calibrated.parameters(), steps.values(), strict=True))
    factor = next(f for f in np.geomspace(0.5, 0.01, 100) if sum(map(entropy, codes(f))) >= bits)
    with torch.no_grad():
        for value, code in zip(values, codes(factor), strict=True):
            value.copy_(code * (factor * value[value != 0].square().mean().sqrt()))
    held_out = inputs(500)
    assert distance(original, calibrated, held_out) < 0.7 * distance(original, plain, held_out)


def test_errors_are_kept_to_on_the_last_batch() -> None:
    model, before = net(), net()
    quantize(model, model, BATCHES, error=0.02)
    assert 0.016 < distance(before, model, BATCHES[-1]) <= 0.02  # so small a net jumps from one rounding to another


def test_what_the_model_was_set_to_comes_back() -> None:
    model = net().train()
    model.depthwise.eval()
    model.conv.requires_grad_(False)
    assert "conv.weight" in quantize(model, model, BATCHES, bits=4)
    assert model.training
    assert not model.depthwise.training
    assert not model.conv.weight.requires_grad
    assert model.output.weight.requires_grad


def slowly(weight: Tensor, second: Tensor, step: float) -> Tensor:
    """round_rows, one number after the other: each code is the best one given those chosen before it."""
    codes = torch.zeros_like(weight)
    order = second.diagonal().argsort(stable=True)
    for row in range(len(weight)):
        at = [int(i) for i in order if weight[row, i]]
        factor = torch.linalg.cholesky(second[at][:, at]).T
        error = torch.zeros(len(at))
        for i in reversed(range(len(at))):
            wanted = weight[row, at[i]] / step + factor[i, i + 1 :] @ error[i + 1 :] / factor[i, i]
            codes[row, at[i]] = torch.round(wanted)
            error[i] = weight[row, at[i]] / step - codes[row, at[i]]
    return codes


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_rows_together_are_rows_one_by_one(share: float) -> None:
    torch.manual_seed(3)
    weight = torch.randn(50, 30) * (torch.rand(50, 30) < share * torch.rand(50, 1).clamp(min=share))
    x = torch.randn(200, 5) @ torch.randn(5, 30) + 0.3 * torch.randn(200, 30)
    second = x.t() @ x / 200
    found = round_rows(weight, second, 0.3)
    assert torch.equal(found, slowly(weight, second, 0.3))
    errors = [((weight - codes * 0.3) @ x.t()).square().sum() for codes in (found, torch.round(weight / 0.3))]
    assert errors[0] <= errors[1] * (0.7 if share == 1 else 1)


def test_inputs_that_do_not_go_together_leave_plain_rounding() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_rows(weight, torch.rand(30).add(0.1).diag(), 0.25), torch.round(weight / 0.25))


def test_entropy_of_codes() -> None:
    assert entropy(torch.tensor([0.0, 1, 1, -1, -1, 0])) == pytest.approx(4)  # two symbols, one bit each
    assert entropy(torch.tensor([3.0, 3, 0])) == 0
    assert entropy(torch.zeros(4)) == 0


def unrelated(_: Tensor) -> Tensor:
    return torch.rand(2, 3)


def infinite(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda batch: model(batch) * math.inf


@pytest.mark.parametrize(
    ("run", "batches", "target", "says"),
    [
        (None, BATCHES, {}, "give one of them"),
        (None, BATCHES, {"bits": 4.0, "error": 0.1}, "give one of them"),
        (None, BATCHES, {"bits": 40.0}, "up to 16"),
        (None, BATCHES, {"bits": 0.1}, "would ruin the model; give at least 2"),
        (None, BATCHES, {"error": 1e-9}, "give more"),
        (None, [], {"bits": 4.0}, "no batches"),
        (unrelated, BATCHES, {"bits": 4.0}, "no parameter moves the outputs"),
        (infinite, BATCHES, {"bits": 4.0}, "not finite"),
    ],
)
def test_what_cannot_be_done(run, batches, target, says) -> None:
    model = net()
    called = model if run is None else run(model) if run is infinite else run
    with pytest.raises(ConfigError, match=says):
        quantize(model, called, batches, **target)


def test_masks_must_be_off() -> None:
    model = net()
    Pruner(model, Magnitude(0.5))
    with pytest.raises(PruningError, match="finalize"):
        quantize(model, model, BATCHES, bits=4)
