"""What users do to a training under a Pruner: early ends, copies, processes, odd optimizers, resuming."""

import copy
import io

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from laconic import store
from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.magnitude import Gradual, Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.errors import LaconicWarning, PruningError

METHODS = {"supermask": Supermask(0.9), "gradual": Gradual(0.9), "fisher": Fisher(0.9)}
SPARSITY = 1 - (25856 - int(0.9 * 25856)) / 25856


# Ends


@pytest.mark.parametrize("name", METHODS)
def test_finalizing_too_early_tells_how_far_it_has_come_and_how_to_insist(task, adam, name):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, METHODS[name], steps=200).attach(optimizer)
    task.train(model, optimizer, 30)
    found = f"30 of 200 steps done, sparsity {pruner.sparsity:.4g} of 0.9"
    with pytest.raises(PruningError, match=f"^{found}: finalizing would cut.*steps=.*force=True"):
        pruner.finalize()
    assert pruner.sparsity < 0.9
    assert pruner.finalize(force=True) is model
    assert pruner.sparsity == SPARSITY


def test_a_pruner_never_attached_says_so(task):
    pruner = Pruner(task.net(), Supermask(0.9), steps=400)
    with pytest.raises(PruningError, match=r"0 of 400 steps done.*attached to no optimizer"):
        pruner.finalize()


@pytest.mark.parametrize("name", METHODS)
def test_masks_that_have_settled_need_no_further_steps(task, adam, name):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, METHODS[name], steps=60).attach(optimizer)
    task.train(model, optimizer, 40)
    before = {key: mask.clone() for key, mask in pruner.masks().items()}
    pruner.finalize()
    assert all(torch.equal(mask, before[key]) for key, mask in pruner.masks().items())


def test_more_steps_than_announced_are_told_of(task, adam):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9), steps=30).attach(optimizer)
    task.train(model, optimizer, 31)
    with pytest.raises(PruningError, match=r"31 of 30 steps done.*more steps than announced.*force=True"):
        pruner.finalize()
    assert pruner.finalize(force=True)[0].weight.count_nonzero() < 8192


def test_the_number_of_forward_passes_does_not_count(task, adam):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9), steps=20).attach(optimizer)
    for _ in range(20):
        for _ in range(3):
            (task.loss(model) / 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.finalize()
    assert pruner.steps_done == 20


class Nested(torch.optim.Adam):
    """Climbs and descends within one step, each by the step of the optimizer that it is."""

    def step(self, closure=None):
        super().step()
        return super().step()


def test_a_step_of_several_counts_once(task, adam):
    adam(task.net())  # its class tells of its own steps from now on, within those of Nested
    model = task.net()
    optimizer = Nested(model.parameters(), lr=1e-3)
    pruner = Pruner(model, Supermask(0.9), steps=20).attach(optimizer)
    task.train(model, optimizer, 20)
    assert pruner.steps_done == 20
    pruner.finalize()


def test_a_step_with_a_closure_counts_once_and_leaves_the_gates_alone(task):
    model = task.net()
    pruner = Pruner(model, Supermask(0.5), steps=10)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)  # holds the gates, until:
    pruner.attach(optimizer)
    gates = pruner.gates()

    def closure():
        optimizer.zero_grad()
        loss = task.loss(model)
        loss.backward()
        return loss

    before = {name: gate.clone() for name, gate in gates.items()}
    pruner.gate_optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step(closure)
    assert pruner.steps_done == 1
    assert all(torch.equal(gate, before[name]) for name, gate in gates.items())


# Copies


@pytest.mark.parametrize("name", [*METHODS, "magnitude"])
def test_copies_live_on_their_own(task, adam, name, tmp_path):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, METHODS.get(name, Magnitude(0.9)), steps=60).attach(optimizer)
    task.train(model, optimizer, 45)
    best, average = copy.deepcopy(model), torch.optim.swa_utils.AveragedModel(model)
    found = best.eval()(task.x)
    task.train(model, optimizer, 15)
    average.update_parameters(model)
    pruner.finalize()
    assert torch.equal(best(task.x), found)
    assert pruner.finalize(best) is best
    torch.testing.assert_close(best(task.x), found)
    pruner.finalize(average.module)
    for finished in (best, average.module):
        assert list(finished.state_dict()) == list(task.net().state_dict())
        assert [type(module) for module in finished] == [type(module) for module in task.net()]
        assert sum(int(finished[i].weight.count_nonzero()) for i in (0, 2, 4)) == 25856 - int(0.9 * 25856)
        assert store.save(finished, tmp_path / "model.safetensors") < 10_000


@pytest.mark.parametrize("name", METHODS)
def test_a_copy_from_too_early_is_cut_on_request_only(task, adam, name):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, METHODS[name], steps=60).attach(optimizer)
    task.train(model, optimizer, 10)
    early = copy.deepcopy(model)
    task.train(model, optimizer, 50)
    pruner.finalize()
    with pytest.raises(PruningError, match=r"this copy has a sparsity of 0\.\d+ of 0\.9.*force=True"):
        pruner.finalize(early)
    pruner.finalize(early, force=True)
    assert sum(int(early[i].weight.count_nonzero()) for i in (0, 2, 4)) == 25856 - int(0.9 * 25856)
    with pytest.raises(PruningError, match=r"0\.weight has no mask of this pruner"):
        pruner.finalize(early)


# Processes


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A process that is alone in its group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path_factory.mktemp('group')}/it", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"gradient_as_bucket_view": True}])
@pytest.mark.parametrize("name", ["supermask", "gradual"])
def test_masks_settle_under_data_parallel_training(task, adam, group, name, options):
    results = []
    for wrap in (lambda model: model, lambda model: DistributedDataParallel(model, **options)):
        model = task.net()
        torch.manual_seed(1)
        optimizer = adam(model)
        pruner = Pruner(model, METHODS[name], steps=30).attach(optimizer)
        task.train(wrap(model), optimizer, 30)
        assert pruner.settled
        results.append(pruner.finalize().state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, results), strict=True))


# Gradients that are not finite


@pytest.mark.parametrize("options", [{}, {"adaptive": True, "sampling": "round"}])
@pytest.mark.parametrize("native", [True, False])
def test_gates_pass_over_steps_that_are_not_finite(task, adam, options, native, monkeypatch):
    if not native:
        monkeypatch.setattr("laconic.compress.masked.gating.library", lambda: None)
    model = task.net()
    model[2] = nn.Linear(128, 300)  # larger than where kernels begin
    model[4] = nn.Linear(300, 10)
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9, **options), steps=60).attach(optimizer)
    task.train(model, optimizer, 12)
    before = {name: gate.clone() for name, gate in pruner.gates().items()}
    (task.loss(model) * torch.nan).backward()
    for parameter in optimizer.param_groups[0]["params"]:  # as a careful loop does
        parameter.grad.nan_to_num_(0, 0, 0)
    monkeypatch.setattr(pruner.driver, "_keep_pace", lambda step: None)
    optimizer.step()
    assert all(torch.equal(gate, before[name]) for name, gate in pruner.gates().items())
    monkeypatch.undo()
    task.train(model, optimizer, 60 - 13)
    pruner.finalize()
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-4)


# Resuming


@pytest.mark.parametrize("at", [5, 12])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_is_resumed_in_any_order(task, adam, name, at):
    def start():
        model = task.net()
        optimizer = adam(model)
        optimizer.param_groups[0]["betas"] = optimizer.defaults["betas"] = (0.8, 0.99)
        return model, optimizer, Pruner(model, METHODS[name], steps=20)

    model, optimizer, pruner = start()
    model[4].requires_grad_(False)
    pruner.attach(optimizer)
    task.train(model, optimizer, at)
    held = io.BytesIO()
    torch.save([part.state_dict() for part in (model, optimizer, pruner)], held)
    task.train(model, optimizer, 20 - at)
    expected = pruner.finalize().state_dict()
    for order in ((0, 2, 3, 1), (3, 2, 1, 0), (1, 2, 0, 3), (2, 0, 3, 1)):  # 0 to 2 are loaded, 3 attaches
        parts = start()
        parts[0][4].requires_grad_(False)
        held.seek(0)
        states = torch.load(held, weights_only=True)
        for part in order:
            if part == 3:
                parts[2].attach(parts[1])
            else:
                parts[part].load_state_dict(states[part])
        task.train(parts[0], parts[1], 20 - at)
        found = parts[2].finalize().state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected), order


def test_a_checkpoint_from_before_frozen_weights_were_noted_goes_on(task, adam):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9), steps=40).attach(optimizer)
    task.train(model, optimizer, 5)
    state = pruner.state_dict()
    old = {"steps_done": 5, "sensed": False, "optimizer": state["optimizer"]}
    pruner.load_state_dict(old)
    task.train(model, optimizer, 35)
    assert pruner.finalize() is model


def test_going_back_to_where_masks_had_not_settled_lets_them_learn_again(task, adam):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9), steps=40).attach(optimizer)
    task.train(model, optimizer, 10)
    state = copy.deepcopy(pruner.state_dict())
    task.train(model, optimizer, 20)
    assert pruner.settled
    pruner.load_state_dict(state)
    assert not pruner.settled
    task.train(model, optimizer, 30)
    pruner.finalize()


# Optimizers and modules


def test_of_three_betas_none_is_inherited(task, adam):
    model = task.net()
    optimizer = adam(model)
    optimizer.defaults["betas"] = (0.5, 0.6, 0.7)
    pruner = Pruner(model, Supermask(0.9), steps=5).attach(optimizer)
    task.train(model, optimizer, 1)
    assert pruner.gate_optimizer.param_groups[0]["betas"] == (0.9, 0.999)


class Wrapper(torch.optim.Optimizer):
    """As libraries wrap an optimizer: of its kind, and without its hooks."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups, self.defaults = optimizer.param_groups, optimizer.defaults


def test_an_optimizer_that_does_not_tell_of_its_steps_is_refused(task, adam):
    model = task.net()
    pruner = Pruner(model, Supermask(0.9), steps=5)
    with pytest.raises(PruningError, match=r"Wrapper does not tell of its steps.*\(\.optimizer\).*pruner\.step"):
        pruner.attach(Wrapper(adam(model)))
    pruner.attach(adam(model))


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_gates_of_sparse_gradients_are_refused(kind):
    with pytest.raises(PruningError, match=rf"0\.weight has sparse gradients.*{kind.__name__} with sparse=False"):
        Pruner(nn.Sequential(kind(9, 4, sparse=True)), Supermask(0.5), steps=5)
    assert Pruner(kind(9, 4, sparse=True), Magnitude(0.5)).sparsity == 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["supermask", "gradual"])
def test_a_masked_model_is_traced_and_exported(task, adam, name):
    model = task.net()
    pruner = Pruner(model, METHODS[name], steps=9)
    optimizer = adam(model)
    pruner.attach(optimizer)
    task.train(model, optimizer, 5)
    model.eval()
    for made in (torch.jit.trace(model, task.x), torch.export.export(model, (task.x,)).module()):
        torch.testing.assert_close(made(task.x), model(task.x))


# What goes wrong


@pytest.mark.parametrize("nested", [False, True])
def test_a_step_that_raises_is_none_and_the_next_ones_count(task, nested):
    class Twice(torch.optim.Adam):
        """Steps within its step, as optimizers do that look ahead."""

        def step(self, closure=None):
            return super().step(closure)

    model = task.net()
    optimizer = (Twice if nested else torch.optim.Adam)(model.parameters(), lr=1e-3)
    pruner = Pruner(model, Gradual(0.9), steps=20).attach(optimizer)

    def closure():
        raise RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step(closure)
    assert pruner.steps_done == 0
    task.train(model, optimizer, 20)
    assert pruner.steps_done == 20
    pruner.finalize()


class Unread(nn.Module):
    """A layer that the loss depends on, and one that it does not."""

    def __init__(self, task):
        super().__init__()
        self.read, self.unread = task.net(), nn.Linear(64, 128)

    def forward(self, x):
        return self.read(x)


def test_weights_without_a_gradient_are_told_of_and_known_after_a_resume(task, adam):
    model = Unread(task)
    optimizer = adam(model)
    pruner = Pruner(model, Fisher(0.9), steps=40).attach(optimizer)
    with pytest.warns(LaconicWarning, match=r"unread\.weight: never had a gradient, so 24% of the weights to prune"):
        task.train(model, optimizer, 35)
    assert pruner.near_target
    resumed = Unread(task)
    again = Pruner(resumed, Fisher(0.9), steps=40)
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(copy.deepcopy(pruner.state_dict()))
    assert (again.target, again.near_target) == (pruner.target, True)
