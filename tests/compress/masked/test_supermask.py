"""The sparsity loss and whole trajectories against the published code; the derived learning rate on many sizes."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from laconic.compress.masked import masks
from laconic.compress.masked.gates import sparsity_loss
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask, anneal, derive_learning_rate
from laconic.errors import PruningError


@pytest.fixture(scope="module")
def arrays(golden):
    with np.load(golden / "smp" / "e_supermask.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def facts(golden):
    return json.loads((golden / "smp" / "e_supermask.json").read_text())


def published(arrays, target, weight, steps, rate):
    """The golden layer, pruned with the published constants."""
    layer = nn.Linear(4, 3)
    method = Supermask(target, weight=weight, learning_rate=rate, epsilon=1e-2)
    pruner = Pruner(layer, method, steps=steps)
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(arrays["W"])
        layer.bias.copy_(arrays["b"])
        layer.parametrizations.weight[0].gates.copy_(arrays["G"])
    return layer, pruner


def test_sparsity_loss_table(arrays, facts):
    assert len(facts["sparsity_loss"]) > 10
    for row in facts["sparsity_loss"]:
        layer, pruner = published(arrays, row["target"], row["lambda"], row["n_max"], 100.0)
        mask = layer.parametrizations.weight[0]
        loss = sparsity_loss(
            [mask], pruner.method, pruner.method.settings(pruner.weights, pruner.steps), row["n"], row["n_max"]
        )
        loss.backward()
        # the published code computes 1 - alpha in float32
        rounding = row["lambda"] * 1.2e-7
        assert loss.item() == pytest.approx(row["weighted_loss"], rel=1e-5, abs=rounding)
        expected = torch.tensor(row["dL_dG_row0"])
        torch.testing.assert_close(mask.gates.grad[0], expected, rtol=1e-5, atol=rounding)


@pytest.mark.parametrize("penalty", ["l1", "l2", "hinge"])
@pytest.mark.parametrize("opened", [0.0, 0.2, 0.9])
def test_the_gradient_added_by_hand_is_that_of_the_loss(penalty, opened):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 500), nn.Linear(500, 7))
    pruner = Pruner(model, Supermask(0.7, penalty=penalty), steps=10)
    pruner.steps_done = 4
    gates = [mask.gates for mask in pruner.active.values()]
    for gate in gates:
        nn.init.normal_(gate)
        with torch.no_grad():
            gate.sub_(gate.flatten().quantile(1 - opened))
    gates[0].grad = torch.randn(500, 300) * 1e-6  # the task's
    before = gates[0].grad.clone()
    gates[1].grad = torch.zeros(7, 500)
    expected = torch.autograd.grad(pruner.penalty(), gates)
    pruner.driver.add_penalty(pruner.steps_done)
    torch.testing.assert_close(gates[0].grad, before + expected[0])
    torch.testing.assert_close(gates[1].grad, expected[1])
    assert (penalty == "hinge" and opened < 0.3) == (not expected[0].any())


@pytest.mark.parametrize(
    ("key", "arrays_prefix", "noise", "rate", "weight"),
    [("trajectory", "traj", "U", 100.0, 20.0), ("trajectory2", "traj2", "U2", 1.0, 2.0)],
)
def test_trajectory(arrays, facts, key, arrays_prefix, noise, rate, weight, monkeypatch):
    trajectory = facts[key]
    steps = trajectory["n_max"]
    layer, pruner = published(arrays, trajectory["target"], weight, steps, rate)
    gates = layer.parametrizations.weight[0].gates
    own = [layer.parametrizations.weight.original, layer.bias]
    optimizer = torch.optim.Adam(own, lr=1e-2, eps=1e-2)
    for n, facts_of_step in enumerate(trajectory["steps"]):
        monkeypatch.setattr(
            masks, "draw_bernoulli", lambda gates, seed, out, n=n: arrays[noise][n] < torch.sigmoid(gates)
        )
        optimizer.param_groups[0]["lr"] = facts_of_step["lr"]
        loss = (layer(arrays["x"]) - arrays["y"]).square().mean()
        (loss + pruner.penalty()).backward()
        nn.utils.clip_grad_value_([*own, gates], 0.1)
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        gates.grad = None
        assert pruner.sparsity == pytest.approx(facts_of_step["sparsity_after"], abs=1e-6)
        if (name := f"{arrays_prefix}_G_{n + 1}") in arrays:
            torch.testing.assert_close(gates.detach(), arrays[name], rtol=2e-4, atol=2e-4)
            original = own[0].detach()
            torch.testing.assert_close(original, arrays[f"{arrays_prefix}_W_{n + 1}"], rtol=2e-4, atol=2e-4)


def test_annealing_runs_from_zero_to_one():
    assert anneal(0, 10) == 0
    assert anneal(5, 10) == pytest.approx(0.5)
    assert anneal(25, 10) == anneal(10, 10) == pytest.approx(1)


def test_derivation_explains_the_published_run(monkeypatch):
    # Soft-Attention, 97.5 %, lambda 20, learning rate 100: half the gates were off after 0.284 of the steps.
    monkeypatch.setattr("laconic.compress.masked.supermask.CROSSING", 0.282)
    rate = derive_learning_rate(11_911_168, 531_325, 20.0, 1e-2, 5.0)
    assert rate == pytest.approx(100, rel=0.02)


def train_toy(width: int, steps: int, sparsity: float, until: int | None = None) -> Pruner:
    """A regression whose target needs few of the inputs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, 5))
    pruner = Pruner(model, Supermask(sparsity), steps=steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    pruner.attach(optimizer)
    for _ in range(until or steps):
        x = torch.randn(64, 20)
        loss = (model(x) - torch.sin(2 * x[:, :5])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pruner


LONG = (4, 600, 0.5), (40, 600, 0.5), (40, 600, 0.9), (1000, 600, 0.9)  # some seconds each


@pytest.mark.parametrize(
    ("width", "steps", "sparsity"),
    [
        *itertools.product((4, 40, 1000), (30, 120), (0.5, 0.9)),
        *((4, 600, 0.9), (1000, 600, 0.5)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG),
    ],
)
def test_target_is_met_on_any_model_and_length(width, steps, sparsity):
    pruner = train_toy(width, steps, sparsity)
    assert pruner.settled
    kept = sum(int(mask.sum()) for mask in pruner.masks().values())
    assert kept == pruner.weights - int(sparsity * pruner.weights)


@pytest.mark.parametrize("width", [4, 40, 1000])
def test_gates_come_near_the_target_by_themselves(width):
    pruner = train_toy(width, 300, 0.9, until=149)  # one step before the masks settle
    assert not pruner.settled
    assert pruner.sparsity == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("pace", [True, False])
def test_the_sparsity_keeps_pace_with_its_schedule_though_the_loss_is_too_weak(pace):
    torch.manual_seed(0)
    layer = nn.Linear(100, 50)
    method = Supermask(0.8, weight=1.0, learning_rate=1e-6, pace=pace, settle=0.5)
    pruner = Pruner(layer, method, steps=1000)
    with torch.no_grad():
        gates = pruner.active["weight"].gates.normal_(3.0)
        order = gates.flatten().argsort()
    seen = []
    for _ in range(499):
        gates.grad = torch.zeros_like(gates)  # the task takes no side
        pruner.step()
        seen.append(pruner.sparsity)
    assert torch.equal(gates.flatten().argsort(), order)  # all are lowered alike
    if not pace:
        assert seen[-1] < 0.01
        return
    schedule = method.settings(5000, 1000).pace
    assert seen[98] < 0.01
    assert seen[-1] == pytest.approx(0.8, abs=1e-3)
    for step, sparsity in enumerate(seen, 1):
        least = schedule.sparsity(0.8, step, 1000)
        assert least is None or sparsity == pytest.approx(max(least, seen[98]), abs=1e-3)


def test_settled_masks_stand_still():
    pruner = train_toy(40, 100, 0.9, until=70)
    before = pruner.masks()
    weight = next(iter(pruner.active.values()))
    assert torch.equal(weight(torch.ones_like(weight.gates)), before["0.weight"].float())  # in training, too
    pruner.step()
    assert all(torch.equal(before[name], mask) for name, mask in pruner.masks().items())


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_impossible_sparsity(sparsity):
    with pytest.raises(PruningError, match="0 <= sparsity < 1"):
        Supermask(sparsity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight = 0.0"),
        ({"weight": 1e-300}, r"weight = 1e-300; give 1e-09 to 1e\+09"),
        ({"learning_rate": 1e300}, r"learning_rate = 1e\+300; give 1e-09 to 1e\+09"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"init": 1000.0}, "init = 1000.0.*at most 20"),
        ({"init": 0.0}, "init = 0.0.*more than 0"),
        ({"init": -30.0, "learning_rate": 1.0}, "init = -30.0.*at least -20"),
        ({"settle": 0.95}, "settle = 0.95 leaves pace no time; give less than 0.9"),
        ({"settle": 0.7, "adaptive": True}, "settle = 0.7 leaves pace no time"),
    ],
)
def test_options_that_are_not_possible(options, message):
    with pytest.raises(PruningError, match=message):
        Supermask(0.5, **options)


@pytest.mark.parametrize("options", [{"weight": w} for w in (1e-9, 1e9)] + [{"learning_rate": r} for r in (1e-9, 1e9)])
def test_extreme_constants_reach_the_target_all_the_same(options):
    layer = nn.Linear(9, 9)
    optimizer = torch.optim.Adam(layer.parameters())
    pruner = Pruner(layer, Supermask(0.5, **options), steps=40).attach(optimizer)
    for _ in range(40):
        layer(torch.randn(4, 9)).square().mean().backward()
        optimizer.step()
    pruner.finalize()
    assert pruner.sparsity == 40 / 81


@pytest.mark.parametrize(("options", "steps"), [({"settle": 0.89}, 100), ({"adaptive": True, "sampling": "round"}, 6)])
def test_a_training_too_short_for_its_pace_is_refused_before_it_begins(options, steps):
    with pytest.raises(PruningError, match=f"{steps} steps leave pace none.*train longer, lower settle"):
        Pruner(nn.Linear(8, 8), Supermask(0.5, **options), steps=steps)


@pytest.mark.parametrize("penalty", ["l1", "l2", "hinge"])
@pytest.mark.parametrize("opened", [0.2, 0.8])
def test_the_penalty_told_is_that_of_the_loss(penalty, opened):
    layer = nn.Linear(40, 50)
    pruner = Pruner(layer, Supermask(0.5, penalty=penalty), steps=10)
    with torch.no_grad():
        layer.parametrizations.weight[0].gates.copy_(opened - torch.rand(50, 40))
    pruner.steps_done = 3
    assert pruner.statistics()["penalty"] == pytest.approx(pruner.penalty().item())


def test_adaptive_gates_that_no_loss_reads_rest():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    pruner = Pruner(model, Supermask(0.5, adaptive=True, sampling="round"), steps=200)
    pruner.attach(torch.optim.Adam(model.parameters(), lr=1e-4))
    for _ in range(101):
        (100 * model[1](torch.randn(8, 10)) * torch.randn(8, 10)).mean().backward()
        pruner.optimizer.step()
        model.zero_grad()
    assert [int(mask.sum()) for mask in pruner.masks().values()] == [100, 50]


def test_adaptive_gates_stay_where_gradients_are_large_and_fall_where_there_are_none():
    torch.manual_seed(0)
    layer = nn.Linear(100, 40, bias=False)
    method = Supermask(0.5, adaptive=True, sampling="round", pace=False)
    pruner = Pruner(layer, method, steps=2000)
    pruner.attach(torch.optim.Adam(layer.parameters(), lr=1e-4))
    needed = torch.arange(100) < 30
    for _ in range(690):
        x = 100 * torch.randn(64, 100) * needed  # the loss asks for nothing but noise
        (layer(x) * torch.randn(64, 40)).mean().backward()
        pruner.optimizer.step()
        layer.zero_grad()
    gates = layer.parametrizations.weight[0].gates.detach()
    assert gates[:, needed].median() > 4.5
    assert (gates[:, needed] > gates[:, ~needed].max()).float().mean() > 0.99
    assert gates[:, ~needed].max() < 0.5
    assert gates.max() < 8  # none is thrown about


def test_adaptive_gates_keep_pace_to_the_target_and_take_no_epsilon():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 200), nn.Tanh(), nn.Linear(200, 5))
    pruner = Pruner(model, Supermask(0.9, adaptive=True), steps=100)
    pruner.attach(torch.optim.Adam(model.parameters(), lr=5e-3))
    reached = []
    for _ in range(49):  # they settle, trimmed, at 50
        x = torch.randn(64, 20)
        (model(x) - torch.sin(2 * x[:, :5])).square().mean().backward()
        pruner.optimizer.step()
        model.zero_grad()
        reached.append(pruner.sparsity)
    assert reached[14] == 0  # they stand still at first
    assert not pruner.settled
    assert 0.89 < reached[-1] < 0.97  # may run ahead, not lag behind
    assert pruner.penalty() is None  # nothing for a loop of one's own to add
    with pytest.raises(PruningError, match="leave out epsilon"):
        Supermask(0.9, adaptive=True, epsilon=1e-8)
