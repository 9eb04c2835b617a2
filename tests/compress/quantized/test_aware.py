"""Quantizer on every kind of module: on the grid, zeros kept, tied and copied, in any loop, stored bit by bit."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from laconic import store
from laconic.compress import stacking
from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.magnitude import Gradual, Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.compress.quantized.aware import Quantizer
from laconic.errors import PruningError

from ..modules import Tied, run, train


def codes_of(quantizer: Quantizer, model: nn.Module) -> dict[str, Tensor]:
    """Whole numbers that the weights of a finalized model are, checked to be of the bits that were asked for."""
    parameters, found = dict(model.named_parameters()), {}
    steps = {name: torch.tensor(step) for name, step in quantizer.steps().items()}
    steps |= {n: s.view(-1, *[1] * (parameters[n].ndim - 1)) for n, s in quantizer.row_steps().items()}
    for name, step in steps.items():
        codes = (parameters[name].detach() / step).round()
        assert torch.equal(codes * step, parameters[name])
        assert codes.abs().max() <= 2 ** (quantizer.bits[name] - 1) - 1
        found[name] = codes
    return found


@pytest.mark.parametrize(("bits", "per_row"), [(2, False), (4, True), (8, False)])
def test_finalize_gives_the_ordinary_module_on_its_grids(case, bits, per_row):
    model, x, names = case
    keys, modules = list(model.state_dict()), [type(m) for m in model.modules()]
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    quantizer = Quantizer(model, bits, few=0, per_row=per_row).attach(optimizer)
    before = {**quantizer.steps(), **quantizer.row_steps()}
    train(model, optimizer, x)
    model.eval()
    expected = run(model, x)
    assert quantizer.finalize() is model
    torch.testing.assert_close(run(model, x), expected, rtol=1e-5, atol=1e-6)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == modules
    assert all(dict(model.named_parameters())[name] is parameter for name, parameter in parameters.items())
    assert codes_of(quantizer, model).keys() == quantizer.bits.keys() == set(names)
    after = {**quantizer.steps(), **quantizer.row_steps()}
    assert all((torch.as_tensor(after[name]) != torch.as_tensor(before[name])).any() for name in names)
    assert not any(torch.signbit(p[p == 0]).any() for p in map(dict(model.named_parameters()).get, names))


@pytest.mark.parametrize("pruner_first", [True, False])
@pytest.mark.parametrize("quantizer_last", [True, False])
def test_masks_and_quantisers_may_come_and_go_in_any_order(case, pruner_first, quantizer_last):
    model, x, names = case
    keys, parameters = list(model.state_dict()), list(model.parameters())
    makers = {"pruner": lambda: Pruner(model, Supermask(0.5), steps=3), "quantizer": lambda: Quantizer(model, 3, few=0)}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    made = {name: makers[name]().attach(optimizer) for name in sorted(makers, reverse=not pruner_first)}
    train(model, optimizer, x)
    for name in sorted(makers, reverse=not quantizer_last):
        made[name].finalize()
    assert list(model.state_dict()) == keys
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    now = dict(model.named_parameters())
    codes_of(made["quantizer"], model)
    assert all(not now[name][~keep].any() for name, keep in made["pruner"].masks().items())
    assert sum(int(now[name].count_nonzero()) for name in names) <= sum(now[n].numel() for n in names) / 2 + 1
    assert len(optimizer.param_groups[0]["params"]) == len(parameters)


def test_weights_of_a_file_start_on_its_grids(case):
    """With a smaller largest code than the bits allow, whose rule of its own would be another step."""
    model, _, names = case
    codes = {name: p.detach().mul(40).round_().clamp_(-5, 5) for name, p in model.named_parameters() if name in names}
    with torch.no_grad():
        for name, code in codes.items():
            dict(model.named_parameters())[name].copy_(code * 0.03)
    steps = dict.fromkeys(names, 0.03)
    quantizer = Quantizer(model, 4, few=0, steps=steps)
    assert quantizer.steps() == pytest.approx(steps)
    quantizer.finalize()
    for name, code in codes.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].detach(), code * 0.03)
    off = dict.fromkeys(names, 0.011)
    assert all(step != pytest.approx(0.011) for step in Quantizer(model, 4, few=0, steps=off).steps().values())


# Zeros


def sparse(model: nn.Module) -> dict[str, Tensor]:
    pruner = Pruner(model, Magnitude(0.7))
    pruner.finalize()
    return {name: keep.clone() for name, keep in pruner.masks().items()}


OPTIMIZERS = {
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_zeros_stay_zero_without_a_mask_even_where_the_optimizer_remembers_more(task, kind):
    model = task.net()
    optimizer = OPTIMIZERS[kind](model)
    task.train(model, optimizer, 5)
    keep = sparse(model)
    quantizer = Quantizer(model, 4).attach(optimizer)
    task.train(model, optimizer, 20)
    assert all(not stacking.original(model[int(n[0])], "weight")[~k].any() for n, k in keep.items())
    moved = stacking.original(model[0], "weight").detach().clone()
    task.train(model, optimizer, 1)
    assert not torch.equal(moved, stacking.original(model[0], "weight"))
    quantizer.finalize()
    assert all(not dict(model.named_parameters())[name][~k].any() for name, k in keep.items())


def test_zeros_of_masks_that_are_baked_in_meanwhile_stay(task, adam):
    model = task.net()
    optimizer = adam(model)
    quantizer = Quantizer(model, 4).attach(optimizer)
    pruner = Pruner(model, Gradual(0.8), steps=20).attach(optimizer)
    task.train(model, optimizer, 20)
    pruner.finalize()
    task.train(model, optimizer, 20)
    quantizer.finalize()
    weights = dict(model.named_parameters())
    assert all(not weights[name][~keep].any() for name, keep in pruner.masks().items())


def test_a_supermask_that_is_learned_before_a_quantiser_reopens_gates(task, adam):
    """Gates of weights that are pruned now learn through the quantiser, as they do without one."""
    model = task.net()
    Pruner(model, Supermask(0.5, sampling="round"), steps=5)
    Quantizer(model, 4, few=0)
    (mask, _), closed = stacking.transforms(model[0], "weight"), torch.zeros(128, 64, dtype=torch.bool)
    closed[:, ::2] = True
    mask.set(~closed)
    task.loss(model).backward()
    assert mask.gates.grad[closed].count_nonzero() > 0.9 * closed.sum()
    assert not stacking.original(model[0], "weight").grad[closed].any()


def test_rounded_zeros_are_counted_and_may_come_back(task, adam):
    model = task.net()
    optimizer = adam(model)
    quantizer = Quantizer(model, 2, where=lambda name, _: name != "4.weight").attach(optimizer)
    first = quantizer.sparsity
    assert 0.2 < first < 0.8
    assert quantizer.statistics() == {"quantized_zeros": first}
    before = model[0].weight == 0
    task.train(model, optimizer, 60)
    assert ((model[0].weight != 0) & before).any()
    quantizer.finalize()
    weights = [model[0].weight, model[2].weight]
    zeros = 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
    assert zeros == pytest.approx(quantizer.sparsity)


# What it learns


@pytest.mark.parametrize(("bits", "least"), [(2, 0.85), (3, 0.95)])
def test_training_makes_up_for_few_bits(task, adam, bits, least):
    model = task.net()
    optimizer = adam(model)
    task.train(model, optimizer, 100)
    sparse(model)
    rounded = copy.deepcopy(model)
    Quantizer(rounded, bits).finalize()
    quantizer = Quantizer(model, bits).attach(optimizer)
    task.train(model, optimizer, 80)
    quantizer.finalize()
    assert task.accuracy(model) > max(least, task.accuracy(rounded))


def test_bits_by_name_and_by_kind_of_layer():
    model = nn.ModuleDict(
        {
            "encoder": nn.Sequential(
                nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3, groups=64), nn.Conv2d(64, 300, 3, groups=1), nn.LayerNorm(4)
            ),
            "decoder": nn.ModuleDict(
                {"gates": nn.Linear(64, 64), "score": nn.Linear(64, 1), "output": nn.Linear(64, 99)}
            ),
            "decoders": nn.Linear(64, 64),
        }
    )
    assert Quantizer(copy.deepcopy(model), 3).bits == {
        "encoder.0.weight": 8,
        "encoder.2.weight": 3,
        "decoder.gates.weight": 3,
        "decoder.output.weight": 3,
        "decoders.weight": 3,
    }
    assert Quantizer(copy.deepcopy(model), {"": 2, "decoder": 4, "decoder.output": 0, "decoder.score": 8}).bits == {
        "encoder.0.weight": 8,
        "encoder.2.weight": 2,
        "decoder.gates.weight": 4,
        "decoder.score.weight": 8,
        "decoders.weight": 2,
    }
    assert Quantizer(model, {"encoder": 4, "encoder.0": 4}, careful=6, few=0).bits == {
        "encoder.0.weight": 4,
        "encoder.1.weight": 6,
        "encoder.2.weight": 4,
    }


def test_tied_weights_share_one_step_and_one_tensor_of_a_file(tmp_path):
    model = Tied()
    quantizer = Quantizer(model, 3, few=0)
    assert stacking.transforms(model.embedding, "weight") == stacking.transforms(model.output, "weight")
    quantizer.finalize()
    assert model.output.weight is model.embedding.weight
    store.save(model, tmp_path / "tied", values="trained", steps=quantizer.steps())
    assert store.load(tmp_path / "tied").ties == {"output.weight": "embedding.weight"}


def test_what_is_stored_is_what_was_trained(case, tmp_path):
    model, x, _ = case
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    quantizer = Quantizer(model, 4, few=0).attach(optimizer)
    train(model, optimizer, x)
    quantizer.finalize()
    store.save(model, tmp_path / "model", values="trained", steps=quantizer.steps())
    packed, state = store.load(tmp_path / "model"), model.state_dict()
    assert all(torch.equal(torch.from_numpy(packed[name]), tensor) for name, tensor in state.items())
    assert packed.steps.keys() == quantizer.bits.keys()


# Loops that are not ours


def losses_of(task, accumulated: int) -> list[Tensor]:
    model = task.net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    quantizer = Quantizer(model, 3).attach(optimizer)
    found = []
    for _ in range(6):
        for part in range(accumulated):
            loss = nn.functional.cross_entropy(model(task.x[part::accumulated]), task.y[part::accumulated])
            (loss / accumulated).backward()
        found.append(task.loss(model).detach())
        optimizer.step()
        optimizer.zero_grad()
    return [*found, torch.tensor(list(quantizer.steps().values()))]


def test_gradients_may_be_accumulated(task):
    for one, other in zip(losses_of(task, 1), losses_of(task, 4), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("before", [True, False])
def test_an_optimizer_made_before_or_after_holds_no_steps_and_its_schedule_reaches_them(before, task, adam):
    model = task.net()
    optimizer = adam(model) if before else None
    quantizer = Quantizer(model, 4, learning_rate=0.01)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.5)
    quantizer.attach(optimizer)
    assert len(optimizer.param_groups[0]["params"]) == 6
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4) * 0.9**step)
    rates = []
    for _ in range(12):
        task.train(model, optimizer, 1)
        rates.append(quantizer.step_optimizer.param_groups[0]["lr"])
        scheduler.step()
    factors = [min(1.0, (step + 1) / 4) * 0.9**step for step in range(12)]
    assert rates == pytest.approx([0.01 * f / max(factors[: i + 1]) for i, f in enumerate(factors)])


def test_a_scaled_loss_moves_steps_as_one_that_is_not_and_an_overflow_none(task, adam):
    found = []
    for scale in (1.0, 1024.0):
        model = task.net()
        optimizer = adam(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        quantizer = Quantizer(model, 3).attach(optimizer, scaler if scale > 1 else None)
        for _ in range(4):
            optimizer.zero_grad()
            scaler.scale(task.loss(model)).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append(quantizer.steps())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    before = quantizer.steps()
    optimizer.zero_grad()
    scaler.scale(task.loss(model) * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    assert quantizer.steps() == before
    task.loss(model).backward()
    assert all(quantiser.log_step.grad.isfinite() for quantiser in quantizer.quantisers.values())


@pytest.mark.parametrize("pruned", [False, True])
def test_autocast_sees_float32_weights_on_their_grid(pruned):
    layer = nn.Linear(400, 400)
    if pruned:  # a mask alone would give autocast's type
        Pruner(layer, Supermask(0.5), steps=5)
    quantizer = Quantizer(layer, 4)
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight
        assert layer(torch.randn(2, 400)).dtype == torch.bfloat16
    assert weight.dtype == torch.float32
    codes = weight / quantizer.steps()["weight"]
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-5)


def test_copies_keep_their_quantisers_and_are_finalized_alone(task, adam):
    model = task.net()
    optimizer = adam(model)
    quantizer = Quantizer(model, 3).attach(optimizer)
    average = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(4):
        task.train(model, optimizer, 3)
        average.update_parameters(model)
    twin = copy.deepcopy(average.module)
    twin.eval()
    expected, steps = twin(task.x), quantizer.steps(twin)
    assert steps != quantizer.steps()
    assert type(quantizer.finalize(twin)[0]) is nn.Linear
    torch.testing.assert_close(twin(task.x), expected)
    for name, step in steps.items():
        codes = twin.get_parameter(name) / step
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-5)
    task.train(model, optimizer, 1)
    quantizer.finalize()
    with pytest.raises(PruningError, match=r"0\.weight has no quantiser of this one in what is to be finalized"):
        quantizer.finalize(task.net())


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_quantizer_goes_on_bit_for_bit(task, adam, start, stop):
    def make() -> tuple[nn.Module, Quantizer, torch.optim.Optimizer]:
        model = task.net()
        optimizer = adam(model)
        return model, Quantizer(model, 3, start=start).attach(optimizer), optimizer

    whole, quantizer, optimizer = make()
    task.train(whole, optimizer, 10)
    states = None
    for steps in (stop, 10 - stop):
        model, resumed, optimizer = make()
        if states is not None:
            for one, state in zip((resumed, model, optimizer), states, strict=True):
                one.load_state_dict(state)
        task.train(model, optimizer, steps)
        file = io.BytesIO()
        torch.save([one.state_dict() for one in (resumed, model, optimizer)], file)
        file.seek(0)
        states = torch.load(file, weights_only=True)
    assert resumed.steps() == quantizer.steps()
    for one, other in zip(quantizer.finalize().parameters(), resumed.finalize().parameters(), strict=True):
        assert torch.equal(one, other)


def test_weights_are_float_until_the_start_and_scored_as_such(task, adam):
    model = task.net()
    optimizer = adam(model)
    quantizer = Quantizer(model, 3, start=3).attach(optimizer)
    task.train(model, optimizer, 2)
    assert not quantizer.near_target
    assert quantizer.statistics() == {}
    assert len(model[0].weight.unique()) > 1000
    with pytest.raises(PruningError, match=r"2 steps done, and weights are quantised from step 3 on: train on"):
        quantizer.finalize()
    task.train(model, optimizer, 1)
    assert quantizer.near_target
    assert len(model[0].weight.unique()) == 7
    late = Quantizer(task.net(), 3, start=1)
    early = copy.deepcopy(late.model)
    late.step()
    with pytest.raises(PruningError, match=r"a copy is made after that"):
        late.finalize(early)
    assert len(late.finalize(early, force=True)[0].weight.unique()) == 7
    other = Quantizer(task.net(), 3, start=3)
    assert len(other.finalize(force=True)[0].weight.unique()) == 7


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"steps_done": -1}, ValueError),
        ({"steps_done": "3"}, ValueError),
        ({"highest": float("nan")}, ValueError),
        ({"optimizer": {}}, KeyError),
    ],
)
def test_a_state_that_is_none_is_refused(task, change, error):
    quantizer = Quantizer(task.net(), 4)
    with pytest.raises(error):
        quantizer.load_state_dict({**quantizer.state_dict(), **change})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bits": 1}, "bits = 1: give 2 to 8, or 0 to leave"),
        ({"bits": 9}, "bits = 9: give 2 to 8"),
        ({"bits": 4.0}, r"bits = 4\.0: give 2 to 8"),
        ({"bits": {"0": True}}, "bits = True for 0: give 2 to 8"),
        ({"bits": {"7": 4}}, r"no weight's name begins with '7'; there are 0\.weight"),
        ({"bits": 0}, "no weight to quantise: bits = 0, few = 1024 leave all of 0.weight"),
        ({"few": 99999}, "no weight to quantise"),
        ({"careful": 1}, "bits = 1: give"),
        ({"start": -1}, "start=-1: give the number of steps"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0: give more than 0"),
        ({"where": lambda name, _: False}, "no weight to quantise: `where` refused all of 0.weight"),
    ],
)
def test_options_that_are_not_possible_are_named(task, options, says):
    model = task.net()
    with pytest.raises(PruningError, match=says):
        Quantizer(model, **options)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: nn.Linear(40, 40).half(), "weight holds float16, and float32 weights alone are quantised while"),
        (lambda: nn.Linear(40, 40, device="meta"), "weight has no values"),
        (lambda: nn.Embedding(40, 40, sparse=True), "weight has sparse gradients, of which no step can learn"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(40, 40)), "weight is computed by .*_WeightNorm"),
        (lambda: Quantizer(nn.Linear(40, 40)).model, "weight is quantised already"),
    ],
)
def test_weights_that_cannot_be_quantised_are_refused_by_name(model, says):
    with pytest.raises(PruningError, match=says):
        Quantizer(model())


def test_a_finalized_quantizer_takes_no_more_steps(task):
    quantizer = Quantizer(task.net(), 4)
    quantizer.finalize()
    steps = quantizer.steps()
    for again in (quantizer.finalize, quantizer.step):
        with pytest.raises(PruningError, match="finalized already"):
            again()
    assert quantizer.steps() == steps
    Quantizer(quantizer.model, 4)


def test_frozen_masks_and_weight_decay_keep_every_zero_of_a_pruned_model(task):
    model = task.net()
    keep = sparse(model)
    optimizer = OPTIMIZERS["adamw"](model)
    pruner, quantizer = Pruner(model, Frozen()).attach(optimizer), Quantizer(model, 3).attach(optimizer)
    task.train(model, optimizer, 10)
    pruner.finalize()
    quantizer.finalize()
    assert all(not dict(model.named_parameters())[name][~k].any() for name, k in keep.items())
