"""Pruner on every kind of module: what is masked, one draw a step, exact counts, what is left behind."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from laconic.compress.masked import masks
from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.compress.sites import prunable
from laconic.errors import PruningError

from ..modules import MODULES, Tied, Unrolled, mean_square, run, train


def test_matrices_are_masked_and_nothing_else(case):
    model, _, names = case
    before = {name: p.numel() for name, p in model.named_parameters()}
    pruner = Pruner(model, Supermask(0.5), steps=5)
    assert sorted(pruner.masks()) == sorted(names)
    assert pruner.weights == sum(before[name] for name in names)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77])
def test_finalize_gives_the_ordinary_module_exactly_that_sparse(case, sparsity):
    model, x, names = case
    keys, kind, modules = list(model.state_dict()), type(model), [type(m) for m in model.modules()]
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = Pruner(model, Supermask(sparsity), steps=3).attach(optimizer)
    train(model, optimizer, x)
    model.eval()
    with pruner.trimmed():
        grad_mode, expected = run(model, x), None
        with torch.no_grad():  # the fast path of attention and transformer layers
            expected = run(model, x)
    kept = {name: mask.clone() for name, mask in pruner.masks().items()}
    assert pruner.finalize() is model
    torch.testing.assert_close(run(model, x), grad_mode, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(run(model, x), expected, rtol=1e-5, atol=1e-6)
    assert list(model.state_dict()) == keys
    assert type(model) is kind
    assert [type(m) for m in model.modules()] == modules
    now = dict(model.named_parameters())
    assert all(now[name] is parameter for name, parameter in parameters.items())
    total = sum(now[name].numel() for name in names)
    non_zeros = sum(int(now[name].count_nonzero()) for name in names)
    assert non_zeros == total - int(sparsity * total)
    assert pruner.sparsity == pytest.approx(int(sparsity * total) / total)
    assert kept.keys() == pruner.masks().keys()


def test_training_goes_on_after_finalize_with_the_same_optimizer(case):
    model, x, _ = case
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = Pruner(model, Supermask(0.5), steps=2).attach(optimizer)
    train(model, optimizer, x, 2)
    pruner.finalize()
    before = {name: p.clone() for name, p in model.named_parameters()}
    train(model, optimizer, x, 2)
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed
    assert pruner.steps_done == 2
    with pytest.raises(PruningError, match="finalized already"):
        pruner.finalize()


def test_masked_weights_see_zero_gradient_and_evaluation_uses_open_gates(case):
    model, x, names = case
    originals = dict(model.named_parameters())
    pruner = Pruner(model, Supermask(0.5, sampling="round"), steps=5)
    torch.manual_seed(3)
    for mask in pruner.active.values():
        nn.init.normal_(mask.gates)
    model.eval()
    mean_square(model, x).backward()
    plain = copy.deepcopy({name: originals[name].detach() for name in names})
    for name, keep in pruner.masks().items():
        assert not originals[name].grad[~keep].any()
        plain[name] = plain[name] * keep
    with torch.no_grad():
        pruned = run(model, x)
    pruner.finalize(force=True)
    with torch.no_grad():
        for name in names:
            originals[name].copy_(plain[name])
        # trimming moved some gates, so put the untrimmed result back before comparing
        torch.testing.assert_close(run(model, x), pruned, rtol=1e-5, atol=1e-6)


def test_biases_and_norms_train_as_ever():
    make, draw, _ = MODULES["norms"]
    model, x = make(), draw()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Pruner(model, Supermask(0.5), steps=5).attach(optimizer)
    others = {n: p.clone() for n, p in model.named_parameters() if "parametrizations" not in n}
    assert sorted(others) == ["0.bias", "1.bias", "1.weight", "2.bias", "2.weight"]
    target = torch.randn(2, 4, 6, 6)
    (model(x) - target).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(p, dict(model.named_parameters())[n]) for n, p in others.items() if n != "0.bias")


# Tied weights


def test_tied_weights_share_one_mask_and_stay_tied():
    model = Tied()
    parameter, ids = model.embedding.weight, torch.arange(12).view(3, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = Pruner(model, Supermask(0.6), steps=3).attach(optimizer)
    assert pruner.weights == 20 * 8 + 8 * 8
    model.train()
    assert torch.equal(model.embedding.weight, model.output.weight)  # the same draw
    train(model, optimizer, ids)
    pruner.finalize()
    assert model.embedding.weight is parameter
    assert model.output.weight is parameter
    assert sum(p is parameter for p in model.parameters()) == 1


def test_a_weight_tied_within_one_module():
    model = nn.Module()
    model.a = nn.Parameter(torch.randn(3, 3))
    model.b = model.a
    pruner = Pruner(model, Supermask(0.5), steps=1)
    assert torch.equal(model.a, model.b)
    pruner.finalize(force=True)
    assert model.a is model.b
    assert model.a.count_nonzero() == 9 - 4


@pytest.mark.parametrize("accepted", ["embedding", "output"])
def test_tied_weights_are_chosen_by_any_of_their_names(accepted):
    model, ids = Tied(), torch.arange(12).view(3, 4)
    pruner = Pruner(model, Supermask(0.6), steps=3, where=lambda name, _: name.startswith(accepted))
    pruner.trim()
    model.eval()
    before = model(ids)
    pruner.finalize(force=True)
    torch.testing.assert_close(model(ids), before)


# One draw per step


@pytest.fixture
def draws(monkeypatch) -> list[int]:
    """Sizes of the Bernoulli draws made."""
    made: list[int] = []
    original = masks.draw_bernoulli

    def counted(gates: Tensor, seed: int, out: Tensor | None) -> Tensor:
        made.append(gates.numel())
        return original(gates, seed, out)

    monkeypatch.setattr(masks, "draw_bernoulli", counted)
    return made


def test_one_draw_per_mask_and_training_step(case, draws):
    model, x, names = case
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    Pruner(model, Supermask(0.5, init=0.5, settle=0.0), steps=4).attach(optimizer)
    for step in range(1, 4):
        model.train()
        mean_square(model, x).backward()
        mean_square(model, x).backward()  # gradient accumulation: still one network
        optimizer.step()
        assert len(draws) == step * len(names)
    model.eval()
    run(model, x)
    assert len(draws) == 3 * len(names)


def test_an_unrolled_cell_sees_one_network():
    torch.manual_seed(0)
    model = Unrolled(nn.LSTMCell)
    pruner = Pruner(model, Supermask(0.5, init=0.3), steps=5)
    x = torch.randn(6, 4, 5)
    seen = [(model.cell.weight_ih, model.cell.weight_hh) for _ in range(2)]
    plain = Unrolled(nn.LSTMCell)
    plain.cell.load_state_dict(
        {"weight_ih": seen[0][0], "weight_hh": seen[0][1]}
        | {n: p for n, p in model.cell.named_parameters() if n.startswith("bias")}
    )
    assert 0 < int((seen[0][0] == 0).sum()) < seen[0][0].numel()
    torch.testing.assert_close(model(x), plain(x))
    pruner.step()
    assert not torch.equal(model.cell.weight_ih, seen[1][0])


def test_autocasts_type_reaches_only_weights_that_nothing_but_products_reads():
    tied = Tied()
    tied.embedding = nn.Embedding(400, 400)
    tied.output = nn.Linear(400, 400)
    tied.output.weight = tied.embedding.weight
    model = nn.ModuleList([nn.Linear(400, 400), nn.LSTMCell(400, 400), nn.Embedding(400, 400), nn.Linear(4, 4), tied])
    Pruner(model, Supermask(0.5), steps=5)
    with torch.autocast("cpu", torch.bfloat16):
        weights = [model[0].weight, model[1].weight_hh, model[2].weight, model[3].weight, tied.output.weight]
        types = [weight.dtype for weight in weights]
        hidden, _ = model[1](torch.randn(2, 400))
    assert types == [torch.bfloat16, torch.bfloat16, *[torch.float32] * 3]  # a small matrix would gain nothing
    hidden.sum().backward()
    assert model[1].parametrizations.weight_ih.original.grad.dtype == torch.float32


# Optimizers


def optimizers(model: nn.Module):
    return {
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=1e-2),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5),
        "fused": lambda: torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True),
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
        "groups": lambda: torch.optim.AdamW(
            [{"params": list(model[0].parameters()), "lr": 0.1}, {"params": model[2].parameters()}]
        ),
    }


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))


@pytest.mark.parametrize("kind", ["adam", "adamw", "fused", "sgd", "groups"])
def test_optimizer_built_before_or_after_the_pruner_gives_the_same(kind):
    results = []
    x = torch.randn(32, 6)
    for before in (True, False):
        model = net()
        optimizer = optimizers(model)[kind]() if before else None
        pruner = Pruner(model, Supermask(0.5), steps=40)
        optimizer = optimizer or optimizers(model)[kind]()
        pruner.attach(optimizer)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        gates = [mask.gates for mask in pruner.active.values()]
        assert not held & {id(g) for g in gates}
        assert len(held) == 4
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        torch.manual_seed(1)
        for _ in range(40):
            mean_square(model, x).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        (group,) = pruner.gate_optimizer.param_groups
        assert (
            group["lr"] == pruner.method.settings(pruner.weights, pruner.steps).learning_rate
        )  # no scheduler reaches the gates
        assert group["weight_decay"] == 0
        assert 0.3 < pruner.sparsity < 0.7
        results.append(pruner.finalize().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, results), strict=True))


def test_betas_are_inherited():
    pruner = Pruner(net(), Supermask(0.5), steps=5)
    pruner.attach(torch.optim.Adam(pruner.model.parameters(), betas=(0.9, 0.98)))
    assert pruner.gate_optimizer.defaults["betas"] == (0.9, 0.98)


def losses(order: str) -> tuple[list[float], float]:
    model, x = net(), torch.randn(16, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = Pruner(model, Supermask(0.5, init=1.0), steps=10).attach(optimizer)
    torch.manual_seed(1)
    found = []
    for _ in range(10):
        if order == "before":
            optimizer.zero_grad()
        loss = mean_square(model, x)
        if order == "between":
            model.zero_grad()
        loss.backward()
        optimizer.step()
        if order == "after":
            optimizer.zero_grad(set_to_none=False)
        found.append(loss.item())
    return found, pruner.statistics()["gate_mean"]


def test_when_gradients_are_zeroed_does_not_matter():
    torch.manual_seed(0)
    assert losses("before") == losses("between") == losses("after")


def test_a_skipped_step_leaves_nothing_in_the_gates():
    """As loops skip a batch of no finite loss: backward, no step, zero_grad."""
    model, x = net(), torch.randn(16, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    pruner = Pruner(model, Supermask(0.5), steps=10).attach(optimizer)
    mask = next(iter(pruner.active.values()))
    (mean_square(model, x) * torch.nan).backward()
    assert mask.gates.grad.isnan().any()
    optimizer.zero_grad()
    for _ in range(3):
        mean_square(model, x).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert mask.gates.isfinite().all()
    pruner.finalize(force=True)
    assert optimizer.zero_grad == type(optimizer).zero_grad.__get__(optimizer)


def test_two_pruners_on_one_optimizer_clear_the_gates_of_both():
    model, x = net(), torch.randn(16, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first, second = (
        Pruner(model, Supermask(0.5), steps=10, where=lambda name, _, part=part: name.startswith(part)).attach(
            optimizer
        )
        for part in ("0", "2")
    )
    masks = [mask for pruner in (first, second) for mask in pruner.active.values()]
    mean_square(model, x).backward()
    assert all(mask.gates.grad is not None for mask in masks)
    optimizer.zero_grad()
    assert all(mask.gates.grad is None for mask in masks)
    first.finalize(force=True)
    mean_square(model, x).backward()
    optimizer.zero_grad()
    assert all(mask.gates.grad is None for mask in masks)


def test_a_scaled_loss_moves_gates_as_one_that_is_not():
    def gates(scaled: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model, x = net(), torch.randn(16, 6)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        pruner = Pruner(model, Supermask(0.5, init=1.0), steps=10).attach(optimizer, scaler)
        for _ in range(5):
            scaler.scale(mean_square(model, x)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return torch.cat([mask.gates.flatten() for mask in pruner.active.values()])

    torch.testing.assert_close(gates(True), gates(False))


def test_an_overflow_of_a_scaled_loss_moves_no_gate():
    model, x = net(), torch.randn(16, 6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)  # steps, and looks for overflows itself
    pruner = Pruner(model, Supermask(0.5), steps=10).attach(optimizer, scaler)
    before = [mask.gates.detach().clone() for mask in pruner.active.values()]
    scaler.scale(mean_square(model, x) * torch.inf).backward()
    scaler.step(optimizer)
    assert pruner.steps_done == 0
    assert all(torch.equal(mask.gates, held) for mask, held in zip(pruner.active.values(), before, strict=True))


def test_gates_move_by_loss_and_penalty():
    """The hook adds the sparsity loss to what the task's backward left in the gates."""
    model, x = net(), torch.randn(16, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = Pruner(model, Supermask(0.5, weight=3.0), steps=4).attach(optimizer)
    pruner.steps_done = 2  # alpha one half
    mask = next(iter(pruner.active.values()))
    mean_square(model, x).backward()
    task = mask.gates.grad.clone()
    kept = []
    pruner.gate_optimizer.register_step_pre_hook(lambda *_: kept.append(mask.gates.grad.clone()))
    optimizer.step()
    slope = torch.sigmoid(torch.tensor(5.0)) * torch.sigmoid(torch.tensor(-5.0))
    torch.testing.assert_close(kept[0] - task, (1.5 / pruner.weights * slope).expand_as(task))


# Trimming


def test_trimmed_restores_every_gate():
    model = net()
    pruner = Pruner(model, Supermask(0.7), steps=5)
    for mask in pruner.active.values():
        nn.init.normal_(mask.gates, 1.0)
    before = copy.deepcopy([mask.gates for mask in pruner.active.values()])
    sparsity = pruner.sparsity
    with pytest.raises(KeyError), pruner.trimmed():  # noqa: PT012
        assert pruner.weights * (1 - pruner.sparsity) == pytest.approx(100 - 70)
        raise KeyError
    assert pruner.sparsity == sparsity
    after = [mask.gates for mask in pruner.active.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("opened", [10, 30, 60])
def test_trim_drops_the_smallest_gates_or_restores_the_largest(opened):
    layer = nn.Linear(10, 10)
    pruner = Pruner(layer, Supermask(0.7), steps=5)
    gates = pruner.active["weight"].gates
    with torch.no_grad():
        order = torch.randperm(100)
        gates.view(-1)[order] = torch.arange(100.0) - (100 - opened) + 0.5
    assert pruner.sparsity == pytest.approx(1 - opened / 100)
    pruner.trim()
    assert sorted(order[-30:].tolist()) == pruner.masks()["weight"].flatten().nonzero().flatten().tolist()
    assert pruner.near_target


@pytest.mark.parametrize(("kept", "near"), [(75, False), (77, True), (83, True), (85, False)])
def test_near_target_means_within_five_percent_of_the_non_zeros(kept, near):
    layer = nn.Linear(20, 20)
    pruner = Pruner(layer, Supermask(0.8), steps=5)
    with torch.no_grad():
        pruner.active["weight"].gates.view(-1)[kept:] = -1.0
    assert pruner.near_target is near


def test_equal_gates_are_ranked_by_the_magnitude_of_their_weights():
    layer = nn.Linear(10, 10)
    pruner = Pruner(layer, Supermask(0.83), steps=5)
    largest = layer.parametrizations.weight.original.abs().flatten().topk(17).indices
    pruner.finalize(force=True)
    assert sorted(largest.tolist()) == layer.weight.flatten().nonzero().flatten().tolist()


# Resuming


def test_a_resumed_pruner_goes_on_bit_for_bit():
    x = torch.randn(16, 6)

    def start() -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        return model, optimizer, Pruner(model, Supermask(0.6), steps=20).attach(optimizer)

    model, optimizer, pruner = start()
    torch.manual_seed(1)
    train(model, optimizer, x, 9)
    held = io.BytesIO()
    parts = {"model": model, "optimizer": optimizer, "pruner": pruner}
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "random": torch.get_rng_state()}, held)
    train(model, optimizer, x, 11)

    again, optimizer, resumed = start()
    train(again, optimizer, x, 1)  # whatever has been drawn is forgotten
    held.seek(0)
    state = torch.load(held, weights_only=True)
    again.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["pruner"])
    torch.set_rng_state(state["random"])
    train(again, optimizer, x, 11)
    assert resumed.steps_done == pruner.steps_done == 20
    expected, found = pruner.finalize().state_dict(), resumed.finalize().state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Refusals


def test_where_chooses_by_name_and_weight():
    assert list(prunable(net(), lambda name, _: name.startswith("2"))) == ["2.weight"]
    assert list(prunable(net(), lambda _, weight: weight.shape[1] == 6)) == ["0.weight"]


def test_where_that_matches_nothing_names_the_weights():
    with pytest.raises(PruningError, match=r"refused all of 0\.weight, 2\.weight$"):
        Pruner(net(), Supermask(0.5), steps=5, where=lambda name, _: name.startswith("decoder"))
    many = nn.Sequential(*[nn.Linear(1, 1) for _ in range(11)])
    with pytest.raises(PruningError, match=r"7\.weight and 3 more$"):
        Pruner(many, Supermask(0.5), steps=5, where=lambda *_: False)
    with pytest.raises(PruningError, match="no matrices"):
        Pruner(nn.LayerNorm(4), Supermask(0.5), steps=5)


@pytest.mark.parametrize("method", [Supermask(0.5), Fisher(0.5)])
def test_a_pruner_that_cannot_be_made_leaves_the_model_alone(method):
    model = net()
    keys, weights = list(model.state_dict()), list(model.parameters())
    with pytest.raises(PruningError, match="needs steps="):
        Pruner(model, method)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), weights, strict=True))
    Pruner(model, method, steps=5)


def test_a_finalized_model_can_be_pruned_again():
    model = net()
    Pruner(model, Supermask(0.5), steps=5).finalize(force=True)
    Pruner(model, Supermask(0.8), steps=5).finalize(force=True)
    assert sum(int(m.weight.count_nonzero()) for m in (model[0], model[2])) == 20


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_must_be_positive(steps):
    with pytest.raises(PruningError, match=f"steps={steps}"):
        Pruner(net(), Supermask(0.5), steps=steps)


def test_a_finalized_pruner_takes_no_more_steps():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    pruner = Pruner(model, Supermask(0.5), steps=5).attach(optimizer)
    pruner.finalize(force=True)
    for use in (pruner.step, pruner.trim, lambda: pruner.attach(optimizer), lambda: pruner.sense([]), pruner.finalize):
        with pytest.raises(PruningError, match="finalized already; make a new one"):
            use()


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.ones(4, 4, dtype=torch.int8), "holds int8, and floating-point weights alone"),
        (torch.ones(4, 4, dtype=torch.complex64), "holds complex64"),
        (torch.ones(4, 4, device="meta"), "has no values"),
    ],
)
def test_weights_that_cannot_be_ranked_are_refused_by_name(weight, says):
    model = nn.ModuleDict({"plain": nn.Linear(4, 4), "odd": nn.Module()})
    model["odd"].w = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(PruningError, match=rf"odd\.w {says}"):
        Pruner(model, Magnitude(0.5))
    Pruner(model, Magnitude(0.5), where=lambda name, _: name != "odd.w")
