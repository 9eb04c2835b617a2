"""UPop on a tiny model of one attention and one feed-forward network, and on the golden toy searches."""

import copy
import json
import multiprocessing

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.compress.structured.groups import Adapter, Group, Groups
from laconic.compress.structured.methods import METHODS, UPOP, Method
from laconic.compress.structured.upop import UPop
from laconic.errors import PruningError

HEADS, SIZE, WIDTH, HIDDEN = 2, 4, 6, 12
GRADUAL = [name for name, method in METHODS.items() if method.progressive]


class Block(nn.Module):
    """Attention over three tokens, then a feed-forward network; keeps the dense factor of the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_size = HEADS, SIZE
        self.query, self.key, self.value = (nn.Linear(WIDTH, HEADS * SIZE) for _ in range(3))
        self.output = nn.Linear(HEADS * SIZE, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self._inputs())
        mixed = F.scaled_dot_product_attention(q, k, v, scale=SIZE**-0.5)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        return x + self.outer(F.gelu(self.inner(x)))

    def _inputs(self) -> tuple[nn.Module, ...]:
        return self.query, self.key, self.value


def make(*, macs: bool = False) -> Groups:
    """Two blocks, feed-forward networks named before attention, so that order and kind differ."""
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block())
    groups, adapters = [], {}
    for at in range(2):
        inner = Group(
            f"{at}.inner", "feed_forward", "feed-forward", HIDDEN, (f"{at}.inner",), (f"{at}.outer",),
            parameters=2 * WIDTH + 1, macs=200 if macs else 0,
        )  # fmt: skip
        attention = Group(
            f"{at}", "attention", "attention", SIZE, (f"{at}.query", f"{at}.key", f"{at}.value"), (f"{at}.output",),
            parameters=HEADS * (3 * (WIDTH + 1) + WIDTH), macs=1000 if macs else 0,
        )  # fmt: skip
        groups += [inner, attention]
        adapters[f"{at}"] = Adapter(
            "attention", ("query", "key", "value"), ("output",), heads="heads", head_size="head_size"
        )
    return Groups(model, tuple(groups), adapters)


def batches(steps: int) -> Tensor:
    return torch.randn(steps, 8, 3, WIDTH, generator=torch.Generator().manual_seed(1))


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) - x.roll(1, -1)).square().mean()


def search(upop: UPop, steps: int, *, optimizer: torch.optim.Optimizer | None = None, first: int = 0) -> UPop:
    optimizer = optimizer or torch.optim.SGD(upop.model.parameters(), lr=0.05)
    upop.attach(optimizer)
    for x in batches(steps)[first:]:
        loss_of(upop.model, x).backward()
        optimizer.step()
        optimizer.zero_grad()
    return upop


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Masks


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_fresh_masks_change_no_bit(kind):
    groups = make()
    groups.model.to(kind)
    x = batches(1)[0].to(kind)
    before = groups.model(x)
    parameters = [id(parameter) for parameter in groups.model.parameters()]
    upop = UPop(groups, ratio=0.5, steps=4)
    assert torch.equal(groups.model(x), before)
    assert [id(parameter) for parameter in groups.model.parameters()] == parameters
    upop.release()
    assert torch.equal(groups.model(x), before)


def test_a_mask_multiplies_its_units_in_all_heads_before_the_activation():
    groups = make()
    upop = UPop(groups, ratio=0.5, steps=4)
    values = {name: torch.rand(len(mask)) for name, mask in upop.values().items()}
    by_hand = copy.deepcopy(groups.model)
    upop._evidence.set(values)
    x = batches(1)[0]
    masked = groups.model(x)
    upop.release()
    with torch.no_grad():
        for group in groups:
            for path in group.producers:
                layer = by_hand.get_submodule(path)
                layer._forward_hooks.clear()
                factor = values[group.name].repeat(layer.out_features // group.size)
                layer.weight.mul_(factor[:, None])
                layer.bias.mul_(factor)
    torch.testing.assert_close(by_hand(x), masked)


def test_frozen_layers_are_searched_all_the_same():
    groups = make()
    groups.model.requires_grad_(False)
    groups.model[1].outer.requires_grad_(True)
    upop = search(
        UPop(groups, ratio=0.5, steps=4), 4, optimizer=torch.optim.SGD(groups.model[1].outer.parameters(), 0.1)
    )
    assert all(bool(total.any()) for total in upop._evidence.sums.values())


# The search


@pytest.mark.parametrize("budget", ["parameters", "macs", "mask-count"])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "published"])
def test_the_target_is_met_within_one_unit(method, budget, ratio):
    groups = make(macs=True)
    upop = search(UPop(groups, ratio=ratio, steps=4, budget=budget, method=METHODS[method]), 4)
    assert upop.near_target
    parts = 2 if METHODS[method].scope == "part" else 1
    assert abs(upop.sparsity - ratio) * upop.total <= parts * max(upop.costs.values())
    assert min(upop.widths().values()) >= 1
    for name, value in upop.values().items():
        assert torch.equal(value, upop.masks()[name].float())  # exactly 0 and 1


def test_a_part_loses_the_same_ratio():
    for name in ("mask", "progressive"):
        upop = search(UPop(make(), ratio=0.5, steps=4, method=METHODS[name]), 4)
        widths = upop.widths()
        assert widths["0"] + widths["1"] == SIZE
        assert widths["0.inner"] + widths["1.inner"] == HIDDEN


@pytest.mark.parametrize("method", GRADUAL)
def test_masks_fade_along_the_schedule(method):
    steps = 10
    upop = UPop(make(), ratio=0.5, steps=steps, method=METHODS[method], interval=1)
    optimizer = torch.optim.SGD(upop.model.parameters(), lr=0.05)
    upop.attach(optimizer)
    reached = []
    for x in batches(steps):
        loss_of(upop.model, x).backward()
        optimizer.step()
        optimizer.zero_grad()
        reached.append(upop.statistics()["ratio"])
        for name, value in upop.values().items():
            keep = upop.masks()[name]
            assert torch.equal(value[keep], torch.ones(int(keep.sum())))
            assert torch.allclose(value[~keep], torch.tensor(1 - reached[-1] / 0.5), atol=1e-6)
        assert upop.near_target == (upop.steps_done == steps)
    assert reached == sorted(reached)
    assert reached[-1] == 0.5


def test_learned_masks_stay_until_the_cut():
    upop = search(UPop(make(), ratio=0.5, steps=9, method=METHODS["unified"]), 8)
    assert upop.sparsity == 0
    assert not upop.near_target
    values = torch.cat(list(upop.values().values()))
    assert ((values != 1) & (values > 0)).all()


def test_the_penalty_pulls_learned_masks_down():
    sums = []
    for penalty in (0.0, 50.0):
        upop = search(UPop(make(), ratio=0.5, steps=9, method=Method("mask", progressive=False, penalty=penalty)), 8)
        sums.append(sum(float(value.sum()) for value in upop.values().values()))
    assert sums[1] < sums[0]
    assert UPop(make(), ratio=0.5, steps=9).penalty() is None


def test_magnitudes_and_gradients_choose_different_units():
    chosen = {name: search(UPop(make(), ratio=0.5, steps=6, method=METHODS[name]), 6).masks() for name in GRADUAL}
    assert not same(chosen["upop"], chosen["magnitude"])
    assert not same(chosen["upop"], chosen["taylor"])


def test_magnitude_is_the_norm_of_rows_and_columns():
    groups = make()
    upop = UPop(groups, ratio=0.5, steps=1, method=METHODS["magnitude"])
    block = groups.model[0]
    rows = torch.cat([layer.weight.view(HEADS, SIZE, WIDTH).transpose(0, 1).flatten(1) for layer in block._inputs()], 1)
    columns = block.output.weight.view(WIDTH, HEADS, SIZE).permute(2, 0, 1).flatten(1)
    torch.testing.assert_close(-upop._evidence.scores()["0"], torch.cat([rows, columns], 1).norm(dim=1))


def test_ties_go_to_attention_first():
    upop = UPop(make(), ratio=0.3, steps=1, budget="mask-count")
    upop._evidence.taken = 1  # with sums that are all 0
    upop.trim()
    assert upop.widths() == {"0.inner": 8, "0": 1, "1.inner": 12, "1": 1}


def test_removal_takes_whole_modules():
    for remove, least in ((False, 1), (True, 0)):
        upop = UPop(make(), ratio=0.5, steps=1, remove=remove)
        upop._evidence.taken = 1
        upop._evidence.sums["0"] += 1.0
        upop.trim()
        assert upop.widths()["0"] == least


def test_widths_become_multiples():
    upop = search(UPop(make(), ratio=0.5, steps=4, multiple=4), 4)
    assert {width % 4 for name, width in upop.widths().items() if "inner" in name} == {0}
    assert abs(upop.sparsity - 0.5) * upop.total <= 4 * max(upop.costs.values())


# The same evidence, however a step is computed


def gathered(**run) -> dict[str, Tensor]:
    """Sums of the masks' gradients after one step on a frozen model, over 8 examples."""
    groups = make()
    upop = UPop(groups, ratio=0.5, steps=30)
    optimizer = torch.optim.SGD(groups.model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", enabled=run.get("scaled", False), init_scale=256.0)
    upop.attach(optimizer, scaler)
    parts = run.get("parts", 1)
    for x in batches(1)[0].chunk(parts):
        with torch.autocast("cpu", run.get("half", torch.bfloat16), enabled="half" in run):
            loss = loss_of(groups.model, x) / parts
        scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert upop.steps_done == 1
    return upop._evidence.sums


def test_micro_batches_give_the_same_evidence():
    for name, total in gathered(parts=4).items():
        torch.testing.assert_close(total, gathered()[name])


def test_a_scaler_gives_the_same_evidence():
    for name, total in gathered(scaled=True).items():
        torch.testing.assert_close(total, gathered()[name])


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_evidence(half):
    precise = torch.cat(list(gathered().values()))
    rough = torch.cat(list(gathered(half=half, scaled=half == torch.float16).values()))
    assert rough.dtype == torch.float32
    assert (rough - precise).norm() < 0.02 * precise.norm()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_leaves_no_trace(fused):
    groups = make()
    upop = UPop(groups, ratio=0.5, steps=30)
    optimizer = torch.optim.AdamW(groups.model.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    upop.attach(optimizer, scaler)
    before = upop.state_dict()
    scaler.scale(loss_of(groups.model, batches(1)[0])).backward()
    groups.model[0].outer.bias.grad[0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    after = upop.state_dict()
    assert same(before["sums"], after["sums"])
    assert same(before["masks"], after["masks"])
    assert after["steps_done"] == after["taken"] == after["skipped"] == 0
    assert all(mask.grad is None for mask in upop._masks.values())


def test_gradients_that_are_not_finite_are_left_out_and_counted():
    groups = make()
    upop = UPop(groups, ratio=0.5, steps=3)
    optimizer = torch.optim.SGD(groups.model.parameters(), lr=0.0)
    upop.attach(optimizer)
    for factor in (1.0, float("nan"), 1.0):
        loss_of(groups.model, batches(1)[0]).backward()
        upop._masks["0"].grad[1] *= factor
        optimizer.step()
        optimizer.zero_grad()
    assert upop.statistics()["skipped"] == 1
    assert all(bool(torch.isfinite(total).all()) for total in upop._evidence.sums.values())
    assert upop.near_target
    assert abs(upop.sparsity - 0.5) < 0.1


def test_steps_by_hand_are_those_of_an_attached_optimizer():
    for name in ("upop", "unified"):
        attached = search(UPop(make(), ratio=0.5, steps=5, method=METHODS[name]), 5)
        by_hand = UPop(make(), ratio=0.5, steps=5, method=METHODS[name])
        optimizer = torch.optim.SGD(by_hand.model.parameters(), lr=0.05)
        for x in batches(5):
            (loss_of(by_hand.model, x) + (by_hand.penalty() if name == "unified" else 0)).backward()
            optimizer.step()
            by_hand.step()
            optimizer.zero_grad()
        for group, total in by_hand._evidence.sums.items():
            # the penalty is a part of what a hand-made loss tells the masks
            torch.testing.assert_close(total, attached._evidence.sums[group])
        assert same(by_hand.masks(), attached.masks())


def _one_of_two(rank: int, folder: str, answers: "multiprocessing.Queue[object]") -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        groups = make()
        upop = UPop(groups, ratio=0.5, steps=30)
        optimizer = torch.optim.SGD(groups.model.parameters(), lr=0.0)
        upop.attach(optimizer)
        for broken in (False, True):  # a gradient that is not finite in one process is left out in both
            x = batches(1)[0].chunk(2)[rank]
            (loss_of(groups.model, x) * (float("inf") if broken and rank == 1 else 1.0)).backward()
            optimizer.step()
            optimizer.zero_grad()
        sums = {name: total.tolist() for name, total in upop._evidence.sums.items()}
        answers.put((rank, sums, upop._evidence.skipped, upop._evidence.taken))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow  # two processes, which start where nothing is imported yet
def test_two_processes_average_their_evidence(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=_one_of_two, args=(rank, str(tmp_path), answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    assert found[0][1:] == found[1][1:]
    assert found[0][2:] == (1, 1)
    for name, total in gathered().items():
        torch.testing.assert_close(torch.tensor(found[0][1][name]), total)


# Golden searches


class Slopes(nn.Module):
    """A loss whose gradient by the mask of unit j is c_j mask_j + noise_j, as the golden searches want it."""

    def __init__(self, run: dict) -> None:
        super().__init__()
        self.slopes = {name: torch.tensor(row) for name, row in {**run["c_attn"], **run["c_mlp"]}.items()}
        self.layers = nn.ModuleDict()
        for name, slope in self.slopes.items():
            layer = nn.Linear(1, len(slope))
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)
            self.layers[name.replace(".", "_")] = layer

    def forward(self, noise: dict[str, list[float]]) -> Tensor:
        loss = torch.zeros(())
        for name, slope in self.slopes.items():
            mask = self.layers[name.replace(".", "_")](torch.zeros(1))
            loss = loss + (0.5 * slope * mask.square() + torch.tensor(noise[name]) * mask).sum()
        return loss


@pytest.mark.parametrize("number", [0, 2, 3])  # of the other one gradients do not add up, which UPop has no way to do
def test_golden_searches(golden, number):
    values = json.loads((golden / "upop" / "toy_search.json").read_text())
    run = values["runs"][number]
    model = Slopes(run)
    groups = tuple(
        Group(name, "attention" if name in run["c_attn"] else "feed_forward", "", len(slope),
              (f"layers.{name.replace('.', '_')}",), (), parameters=1)
        for name, slope in model.slopes.items()
    )  # fmt: skip
    method = Method(published=True, attention_weight=run["w_attn"], first_step=not run["skip_step0"])
    upop = UPop(Groups(model, groups), ratio=run["p"], steps=run["T"], interval=run["interval"], method=method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    upop.attach(optimizer)
    updates = {update["step"]: update for update in run["updates"]}
    for step in range(run["T"]):
        model({name: rows[step] for name, rows in run["noise"].items()}).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in updates:
            update = updates[step]
            assert upop.statistics()["ratio"] == pytest.approx(update["p_t"], abs=1e-9)
            assert {name: mask.int().tolist() for name, mask in upop.masks().items()} == update["keep"]
            for name, value in upop.values().items():
                assert value.tolist() == pytest.approx(update["alpha"][name], abs=1e-6)  # float32
                assert upop._evidence.sums[name].tolist() == pytest.approx(update["accumulated"][name], abs=1e-4)
    assert upop.statistics()["flips"] == values["flips_at_last_update"][number]


# Ending


@pytest.mark.parametrize("method", METHODS)
def test_shrunk_models_are_the_masked_ones(method):
    upop = search(UPop(make(), ratio=0.5, steps=4, method=METHODS[method]), 4)
    x = batches(1)[0]
    masked = upop.model(x)
    size = sum(parameter.numel() for parameter in upop.model.parameters())
    slim = upop.shrink()
    assert slim is upop.model
    torch.testing.assert_close(slim(x), masked, atol=1e-5, rtol=0)
    gone = size - sum(parameter.numel() for parameter in slim.parameters())
    assert gone == round(upop.sparsity * upop.total)
    assert not any(module._forward_hooks for module in slim.modules())


def test_shrinking_leaves_the_optimizer_as_it_was():
    groups = make()
    optimizer = torch.optim.SGD(groups.model.parameters(), lr=0.05)
    clear = optimizer.zero_grad
    upop = search(UPop(groups, ratio=0.5, steps=3), 3, optimizer=optimizer)
    upop.shrink()
    assert optimizer.zero_grad == clear
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_within_trimmed_the_model_is_as_small_as_it_will_be():
    upop = search(UPop(make(), ratio=0.5, steps=20, interval=2), 7)
    before, x = upop.state_dict(), batches(1)[0]
    said = upop.model(x)
    with upop.trimmed():
        assert abs(upop.sparsity - 0.5) * upop.total <= max(upop.costs.values())
        assert {float(value) for mask in upop.values().values() for value in mask} == {0.0, 1.0}
        assert not torch.equal(upop.model(x), said)
    after = upop.state_dict()
    assert same(before["masks"], after["masks"])
    assert same(before["keep"], after["keep"])
    assert before["reached"] == after["reached"]
    assert torch.equal(upop.model(x), said)


# Resuming


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_search_ends_as_an_unbroken_one(method, tmp_path):
    whole = search(UPop(make(), ratio=0.5, steps=8, method=METHODS[method]), 8)
    half = search(UPop(make(), ratio=0.5, steps=8, method=METHODS[method]), 4)
    torch.save({"upop": half.state_dict(), "model": half.model.state_dict()}, tmp_path / "half.pt")
    state = torch.load(tmp_path / "half.pt", weights_only=True)
    resumed = UPop(make(), ratio=0.5, steps=8, method=METHODS[method])
    resumed.model.load_state_dict(state["model"])
    resumed.load_state_dict(state["upop"])
    search(resumed, 8, first=4)
    assert same(resumed.masks(), whole.masks())
    assert same(resumed._evidence.sums, whole._evidence.sums)
    assert resumed.statistics() == whole.statistics()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["keep"].pop("0"), "other groups"),
        (lambda state: state["sums"].update({"0": torch.tensor(1.0)}), "other groups"),
        (lambda state: state["masks"].update({"0": torch.ones(1)}), "other groups"),
        (lambda state: state.update(steps_done=5), "5 steps"),
        (lambda state: state.update(learner={}), "another method"),
    ],
)
def test_a_state_of_another_search_is_refused(change, message):
    upop = UPop(make(), ratio=0.5, steps=4)
    before = upop.state_dict()
    state = copy.deepcopy(before)
    change(state)
    with pytest.raises(ValueError, match=message):
        upop.load_state_dict(state)
    assert same(upop.state_dict()["masks"], before["masks"])
    assert upop.steps_done == 0


# Wrong use


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"ratio": 0.0}, "ratio=0"),
        ({"ratio": 1.0}, "ratio=1"),
        ({"steps": 0}, "steps=0"),
        ({"multiple": 0}, "multiple=0"),
        ({"budget": "seconds"}, "budget='seconds'"),
        ({"budget": "macs"}, "find_groups"),
        ({"method": METHODS["published"], "multiple": 8}, "leave them out"),
        ({"ratio": 0.95}, "at most 0.8.* of the model can go"),
        ({"ratio": 0.95, "method": METHODS["progressive"]}, "of attention can go|of feed-forward can go"),
    ],
)
def test_what_no_search_can_do_is_refused(numbers, message):
    with pytest.raises(PruningError, match=message):
        UPop(make(), **{"ratio": 0.5, "steps": 4, "method": UPOP, **numbers})


def test_what_is_out_of_reach_with_one_unit_each_is_in_reach_without():
    upop = search(UPop(make(), ratio=0.95, steps=4, remove=True), 4)
    assert abs(upop.sparsity - 0.95) * upop.total <= max(upop.costs.values())


def test_shrinking_too_early_is_refused():
    upop = UPop(make(), ratio=0.5, steps=4)
    with pytest.raises(PruningError, match=r"0 of 4 steps done \(attached to no optimizer\)"):
        upop.shrink()
    search(upop, 2)
    with pytest.raises(PruningError, match="2 of 4 steps done: "):
        upop.shrink()
    upop.shrink(force=True)
    assert abs(upop.sparsity - 0.5) * upop.total <= max(upop.costs.values())
    with pytest.raises(PruningError, match="find groups anew"):
        upop.shrink()


def test_more_steps_than_announced_are_refused():
    with pytest.raises(PruningError, match="4 of 4 steps are done"):
        search(UPop(make(), ratio=0.5, steps=4), 5)


def test_a_search_that_has_seen_no_gradient_chooses_nothing():
    """The user trains a copy, say: cutting by position would look like a result."""
    upop = UPop(make(), ratio=0.5, steps=2)
    other = make().model
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05)
    upop.attach(optimizer)
    loss_of(other, batches(1)[0]).backward()
    optimizer.step()
    assert upop.sparsity == 0
    with pytest.raises(PruningError, match="no gradient has reached a mask"):
        optimizer.step()
    with pytest.raises(PruningError, match="no gradient has reached a mask"):
        upop.shrink(force=True)


def test_an_optimizer_that_does_not_tell_of_its_steps_is_refused():
    class Silent:
        def step(self) -> None: ...

    with pytest.raises(PruningError, match="does not tell of its steps"):
        UPop(make(), ratio=0.5, steps=2).attach(Silent())


@pytest.mark.parametrize(
    "fields",
    [{"score": "mask"}, {"published": True, "scope": "part"}, {"penalty": -1.0}, {"rate": 0.0}],
)
def test_methods_that_contradict_themselves_are_refused(fields):
    with pytest.raises(PruningError, match="give"):
        Method(**fields)
