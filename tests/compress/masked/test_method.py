"""Every pruning method against the published code's masks, and what all of them must have in common."""

import copy
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.frozen import Frozen, masks_of
from laconic.compress.masked.magnitude import Gradual, Magnitude
from laconic.compress.masked.method import Method
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.ranking import keep_largest, magnitudes
from laconic.compress.masked.schedule import Cubic
from laconic.compress.masked.snip import Snip
from laconic.compress.masked.supermask import Supermask
from laconic.errors import PruningError


class Net(nn.Module):
    """The little network of the golden files: an embedding, an LSTM cell over three steps, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.cell = nn.LSTMCell(4, 5)
        self.out = nn.Linear(5, 6)

    def forward(self, ids: Tensor) -> Tensor:
        state = None
        for word in torch.relu(self.embed(ids)).unbind(1):
            state = self.cell(word, state)
        assert state is not None
        return self.out(state[0])


@pytest.fixture(scope="module")
def arrays(golden: Path):
    return dict(np.load(golden / "smp" / "d_pruning_masks.npz"))


@pytest.fixture(scope="module")
def facts(golden: Path):
    return json.loads((golden / "smp" / "d_pruning_info.json").read_text())


@pytest.fixture
def net(arrays) -> Net:
    model = Net()
    model.load_state_dict({k.removeprefix("w__"): torch.from_numpy(v) for k, v in arrays.items() if k[:3] == "w__"})
    return model


def expected(arrays, kind: str, sparsity: float) -> dict[str, Tensor]:
    prefix = f"mask__{kind}__{sparsity}__"
    found = {
        key.removeprefix(prefix).removesuffix("_pruning_mask"): torch.from_numpy(value).bool()
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
    assert len(found) == 4
    return found


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


SPARSITIES = (0.5, 0.8, 0.9)
PUBLISHED = {
    "mag_blind": lambda s: Magnitude(s),
    "mag_uniform": lambda s: Magnitude(s, "uniform"),
    "mag_dist": lambda s: Magnitude(s, "distribution", centred=True),
}


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("kind", PUBLISHED)
def test_hard_pruning_gives_the_published_masks(net, arrays, kind, sparsity):
    assert same(Pruner(net, PUBLISHED[kind](sparsity)).masks(), expected(arrays, kind, sparsity))


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("kind", ["blind", "uniform"])
def test_gradual_pruning_ends_with_the_published_masks(net, arrays, kind, sparsity):
    pruner = Pruner(net, Gradual(sparsity, kind, schedule=Cubic(start=1, end=4, interval=1)), steps=6)
    seen = []
    for _ in range(6):
        pruner.step()
        seen.append((pruner.sparsity, pruner.settled))
    assert [settled for _, settled in seen] == [False, False, False, True, True, True]
    assert [s for s, _ in seen] == sorted(s for s, _ in seen)
    assert same(pruner.masks(), expected(arrays, f"mag_grad_{kind}", sparsity))


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("scope", "kind"), [("blind", "blind"), ("uniform", "uniform"), ("distribution", "dist")])
def test_lottery_tickets_are_the_published_ones(net, arrays, scope, kind, sparsity):
    fresh, weights = Net(), {n: p for n, p in net.named_parameters() if p.ndim == 2}
    ticket = keep_largest(magnitudes(weights, scope, centred=True), sparsity, scope)
    before = {name: weight.clone() for name, weight in fresh.named_parameters()}
    pruner = Pruner(fresh, Frozen(ticket))
    assert same(pruner.masks(), expected(arrays, f"lottery_mag_{kind}", sparsity))
    pruner.finalize()
    for name, weight in fresh.named_parameters():  # rewound weights, and nothing else where a mask is open
        assert torch.equal(weight, before[name] * ticket.get(name, torch.ones(1)))


def test_frozen_tensors_keep_their_zeros_and_do_not_count(net, arrays):
    pruner = Pruner(net, Magnitude(0.8), freeze=lambda name, _: name.startswith("out."))
    assert same(pruner.masks(), expected(arrays, "mag_blind_freeze_out", 0.8))
    assert pruner.weights == 28 + 80 + 100
    with torch.no_grad():
        net.out.weight.view(-1)[:7] = 0.0  # has no effect on a mask already frozen
    sparse = Net()
    with torch.no_grad():
        sparse.out.weight.view(-1)[:7] = 0.0
    masks = Pruner(sparse, Supermask(0.5), steps=3, freeze=lambda name, _: name == "out.weight").masks()
    assert int(masks["out.weight"].sum()) == 23
    with pytest.raises(PruningError, match="holds all of"):
        Pruner(Net(), Magnitude(0.5), freeze=lambda *_: True)


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize(("signed", "kind"), [(False, "snip_absolute"), (True, "snip_as_in_their_pytorch")])
def test_snip_gives_the_published_masks(net, arrays, signed, kind, sparsity):
    ids, labels = torch.from_numpy(arrays["ids"]), torch.from_numpy(arrays["labels"])
    pruner = Pruner(net, Snip(sparsity, signed), steps=5)
    pruner.sense([F.cross_entropy(net(ids), labels)])
    assert same(pruner.masks(), expected(arrays, kind, sparsity))
    assert all(p.grad is None for p in net.parameters())


def test_snip_sums_gradients_over_batches_before_it_ranks(net, arrays):
    ids, labels = torch.from_numpy(arrays["ids"]), torch.from_numpy(arrays["labels"])
    parts, whole = Pruner(copy.deepcopy(net), Snip(0.7)), Pruner(net, Snip(0.7))
    whole.sense([F.cross_entropy(net(ids), labels, reduction="sum")])
    parts.sense(F.cross_entropy(parts.model(i[None]), j[None]) for i, j in zip(ids, labels, strict=True))
    assert same(whole.masks(), parts.masks())


def test_snip_prunes_a_part_that_is_not_trained(net, arrays):
    ids, labels = torch.from_numpy(arrays["ids"]), torch.from_numpy(arrays["labels"])
    resting, trained = copy.deepcopy(net), net
    first = next(resting.parameters()).requires_grad_(False)
    pruners = [Pruner(model, Snip(0.7)) for model in (resting, trained)]
    for pruner in pruners:
        pruner.sense(F.cross_entropy(pruner.model(ids), labels) for _ in range(2))
    assert same(pruners[0].masks(), pruners[1].masks())
    assert not first.requires_grad


@pytest.mark.parametrize("options", [{"interval": 0}, {"start": -1}, {"end": -5}])
def test_schedules_that_are_not_possible(options):
    with pytest.raises(PruningError, match=f"{next(iter(options))} = {next(iter(options.values()))}"):
        Cubic(**options)


def test_snip_without_gradients_is_refused(net):
    pruner = Pruner(net, Snip(0.5), steps=2)
    with pytest.raises(PruningError, match=r"call pruner\.sense"):
        pruner.step()
    with pytest.raises(PruningError, match=r"call pruner\.sense"):
        pruner.finalize()
    with pytest.raises(PruningError, match="at least one batch"):
        pruner.sense([])
    with pytest.raises(PruningError, match="Magnitude does not prune by gradients"):
        Pruner(Net(), Magnitude(0.5)).sense([])


def test_the_cubic_schedule_is_the_papers(facts):
    for rule in facts["gradual_schedules"].values():
        steps, start = rule["max_step"], rule["start_step"]
        schedule = Cubic() if start == steps // 15 else Cubic(start=start)
        assert schedule.over(steps) == (start, rule["end_step"], rule["frequency"])
        for target, rows in rule["values"].items():
            found = [(step, schedule.sparsity(float(target), step, steps)) for step, _ in rows]
            assert found == [(step, pytest.approx(sparsity, abs=1e-12)) for step, sparsity in rows]
            assert schedule.sparsity(float(target), start + 1, steps) is None
            assert schedule.sparsity(float(target), rule["end_step"] + rule["frequency"], steps) is None


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 2805])
def test_the_cubic_schedule_reaches_its_target_in_any_length_of_training(steps):
    values = [Cubic().sparsity(0.9, step, steps) for step in range(1, steps + 1)]
    reached = [value for value in values if value is not None]
    assert reached == sorted(reached)
    assert reached[-1:] in ([0.9], [])
    assert steps < 7 or reached
    assert all(v is None for v in values[steps // 2 + 1 :])


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 1000},
        {"end": 301},
        {"start": 100, "end": 50},
        {"start": 300},
        {"start": 10, "end": 20, "interval": 11},
    ],
)
def test_a_schedule_that_cannot_reach_its_target_is_refused(net, options):
    with pytest.raises(
        PruningError, match=r"do not fit a training of 300 steps; give start \+ interval <= end <= steps"
    ):
        Pruner(net, Gradual(0.9, schedule=Cubic(**options)), steps=300)
    assert Cubic(start=10, end=30, interval=7).over(30) == (10, 24, 7)


def test_class_distribution_drops_within_one_factor_of_the_deviation():
    torch.manual_seed(0)
    weights = {"wide": torch.randn(50, 40) * 9 + 3, "narrow": torch.randn(30, 10) * 0.1}
    for name, keep in keep_largest(magnitudes(weights, "distribution"), 0.6, "distribution").items():
        in_deviations = weights[name].abs() / weights[name].std(correction=0)
        assert in_deviations[keep].min() > 0.4
        assert torch.equal(keep, in_deviations >= in_deviations[keep].min())
    constant = {"same": torch.full((3, 3), 2.0), "other": torch.randn(3, 3)}
    kept = keep_largest(magnitudes(constant, "distribution", centred=True), 0.5, "distribution")
    assert sum(int(k.sum()) for k in kept.values()) == 9


def test_equal_scores_are_settled_by_order():
    kept = keep_largest({"a": torch.ones(2, 3), "b": torch.ones(4)}, 0.45)
    assert [int(k.sum()) for k in kept.values()] == [6, 0]


# What all methods have in common

METHODS = {
    "supermask": Supermask(0.7),
    "adaptive supermask": Supermask(0.7, adaptive=True, sampling="round"),
    "hard": Magnitude(0.7),
    "hard uniform": Magnitude(0.7, "uniform"),
    "hard distribution": Magnitude(0.7, "distribution"),
    "gradual": Gradual(0.7),
    "gradual uniform": Gradual(0.7, "uniform"),
    "gradual distribution": Gradual(0.7, "distribution"),
    "fisher": Fisher(0.7),
    "fisher uniform": Fisher(0.7, "uniform"),
    "snip": Snip(0.7),
    "frozen": Frozen(),
}


def trained(method: Method, steps: int, model: Net, pruner: Pruner, optimizer: torch.optim.Optimizer) -> None:
    ids, labels = torch.arange(21).view(7, 3) % 7, torch.arange(7) % 6
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(ids), labels).backward()
        optimizer.step()


def begin(method: Method) -> tuple[Net, Pruner, torch.optim.Optimizer]:
    torch.manual_seed(4)
    model = Net()
    if isinstance(method, Frozen):
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(torch.rand_like(weight) > 0.7)
    pruner = Pruner(model, method, steps=30)
    if isinstance(method, Snip):
        pruner.sense([F.cross_entropy(model(torch.arange(7).view(7, 1)), torch.arange(7) % 6)])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return model, pruner.attach(optimizer), optimizer


@pytest.mark.parametrize("steps", [0, 3, 30])
@pytest.mark.parametrize("name", METHODS)
def test_non_zeros_are_exact_wherever_the_training_stops(name, steps):
    method = METHODS[name]
    model, pruner, optimizer = begin(method)
    trained(method, steps, model, pruner, optimizer)
    if steps == 0 and method.needs_moments:
        with pytest.raises(PruningError, match="has had no gradient yet"):
            pruner.finalize(force=True)
        return
    target = pruner.target if isinstance(method, Frozen) else method.sparsity
    weights = {n: w for n, w in pruner.finalize(force=True).named_parameters() if w.ndim == 2}
    total = sum(w.numel() for w in weights.values())
    non_zeros = sum(int(w.count_nonzero()) for w in weights.values())
    if "uniform" in name:
        assert non_zeros == sum(w.numel() - int(target * w.numel()) for w in weights.values())
    else:
        assert non_zeros == round((1 - target) * total) or non_zeros == total - int(target * total)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_pruner_goes_on_bit_for_bit(name):
    method = METHODS[name]
    model, pruner, optimizer = begin(method)
    trained(method, 9, model, pruner, optimizer)
    held = io.BytesIO()
    parts = {"model": model, "optimizer": optimizer, "pruner": pruner}
    torch.save({**{k: v.state_dict() for k, v in parts.items()}, "random": torch.get_rng_state()}, held)
    trained(method, 21, model, pruner, optimizer)
    again, resumed, optimizer = begin(method)
    held.seek(0)
    state = torch.load(held, weights_only=True)
    again.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["pruner"])
    torch.set_rng_state(state["random"])
    trained(method, 21, again, resumed, optimizer)
    wanted, found = pruner.finalize().state_dict(), resumed.finalize().state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", METHODS)
def test_masks_that_have_settled_never_move_again(name):
    method = METHODS[name]
    model, pruner, optimizer = begin(method)
    settled = None
    for _ in range(30):
        trained(method, 1, model, pruner, optimizer)
        if settled is not None:
            assert all(torch.equal(mask, settled[key]) for key, mask in pruner.masks().items())
        elif pruner.settled:
            settled = {key: mask.clone() for key, mask in pruner.masks().items()}
    assert settled is not None
    assert pruner.near_target


def test_gradual_pruning_brings_weights_back():
    """A pruned weight keeps its value, so it returns where others have shrunk below it."""
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, 1.0, 2.0, 3.0]]))
    pruner = Pruner(layer, Gradual(0.25, schedule=Cubic(1, 2, 1)), steps=4)
    pruner.driver.prune()
    assert pruner.masks()["weight"].tolist() == [[False, True, True, True]]
    with torch.no_grad():
        pruner.raw()["weight"][0, 3] = 0.01
    pruner.driver.prune()
    assert pruner.masks()["weight"].tolist() == [[True, True, True, False]]


def test_methods_with_a_schedule_need_the_number_of_steps():
    for method in (Supermask(0.5), Gradual(0.5), Fisher(0.5)):
        with pytest.raises(PruningError, match=f"{type(method).__name__} needs steps="):
            Pruner(nn.Linear(3, 3), method)
    assert Pruner(nn.Linear(10, 10), Magnitude(0.5)).finalize().weight.count_nonzero() == 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal"])
def test_ranking_keeps_the_largest_whatever_their_order_and_quickly(order, dtype):
    """Some ways to find a threshold take quadratic time on falling scores: minutes for these."""
    scores = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    if order in ("rising", "falling"):
        scores = scores.sort(descending=order == "falling").values
    elif order == "equal":
        scores = torch.ones_like(scores)
    started = time.process_time()
    kept = keep_largest({"a": scores}, 0.8)["a"]
    assert time.process_time() - started < 5
    assert int(kept.sum()) == 400_000
    assert scores[kept].min() >= scores[~kept].max()


@pytest.mark.parametrize("method", [Supermask, Magnitude, Snip])
def test_impossible_sparsities_are_refused(method):
    for sparsity in (-0.1, 1.0):
        with pytest.raises(PruningError, match=f"sparsity {sparsity} is not possible"):
            method(sparsity)


def test_frozen_gates_go_on_drawing_and_end_rounded():
    torch.manual_seed(0)
    layer = nn.Linear(20, 30)
    before = layer.weight.detach().clone()
    gates = torch.randn(30, 20)
    pruner = Pruner(layer, Frozen({"weight": gates}), steps=9)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    pruner.attach(optimizer)
    draws = []
    for _ in range(200):
        draws.append((layer.weight != 0).detach())
        layer(torch.ones(1, 20)).sum().backward()
        optimizer.step()
    assert torch.equal(next(iter(pruner.active.values())).gates, gates)
    share = torch.stack(draws).float().mean(0)
    assert (share - torch.sigmoid(gates)).abs().max() < 0.16
    pruner.finalize()
    assert torch.equal(layer.weight, before * (gates > 0))


def test_given_masks_must_fit():
    with pytest.raises(PruningError, match=r"no mask of shape \(3, 2\) for weight"):
        Pruner(nn.Linear(2, 3), Frozen({"weight": torch.ones(2, 3, dtype=torch.bool)}))
    sparse = {"weight": torch.tensor([[0.0, 1.0]])}
    assert masks_of(sparse)["weight"].tolist() == [[False, True]]
