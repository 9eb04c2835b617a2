"""What is frozen rests, whenever it is frozen; the others reach the target."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.magnitude import Gradual, Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.errors import LaconicWarning, PruningError

METHODS = {
    "supermask": Supermask(0.9),
    "adaptive": Supermask(0.9, adaptive=True, sampling="round"),
    "gradual": Gradual(0.9),
    "fisher": Fisher(0.9),
}


def kept(pruner: Pruner) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in pruner.masks().items()}


def run(task, adam, method, layer: int, when: str) -> tuple[nn.Module, Pruner]:
    """60 steps with a layer frozen before or after the pruner comes, in the middle, or until step 15 or 45."""
    model = task.net()
    if when == "before":
        model[layer].requires_grad_(False)
    pruner = Pruner(model, method, steps=60)
    if when != "middle":
        model[layer].requires_grad_(False)
    optimizer = adam(model)
    pruner.attach(optimizer)
    stop = {"15": 15, "45": 45, "middle": 20}.get(when, 0)
    task.train(model, optimizer, stop)
    model[layer].requires_grad_(when not in ("before", "after", "middle"))
    frozen = pruner.masks()[f"{layer}.weight"].clone()
    task.train(model, optimizer, 60 - stop)
    pruner.finalize()
    assert torch.equal(pruner.masks()[f"{layer}.weight"], frozen)
    return model, pruner


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("layer", "when"), [(0, "before"), (0, "after"), (2, "15"), (2, "45"), (2, "middle")])
def test_frozen_weights_keep_their_masks_and_the_others_reach_the_target(task, adam, name, layer, when):
    model, pruner = run(task, adam, METHODS[name], layer, when)
    resting = f"{layer}.weight"
    counts = kept(pruner)
    others = sum(model[i].weight.numel() for i in (0, 2, 4) if i != layer)
    assert sum(counts.values()) - counts[resting] == others - int(0.9 * others)
    assert pruner.sparsity == pytest.approx(1 - sum(counts.values()) / 25856)
    if when != "middle":
        assert counts[resting] == model[layer].weight.numel()


def test_the_order_of_freezing_and_pruning_does_not_matter(task, adam):
    first, second = (run(task, adam, METHODS["supermask"], 0, when)[0].state_dict() for when in ("before", "after"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_task_is_learned_around_a_frozen_layer(task, adam):
    model = task.net()
    model[2].requires_grad_(False)
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9), steps=300).attach(optimizer)
    task.train(model, optimizer, 300)
    assert task.accuracy(pruner.finalize()) > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_where_all_is_frozen_the_first_step_says_so(task, adam, name):
    model = task.net()
    model[4].bias.requires_grad_()
    optimizer = adam(model)
    pruner = Pruner(model, METHODS[name], steps=100).attach(optimizer)
    for layer in (0, 2, 4):
        model[layer].requires_grad_(False)
    model[4].bias.requires_grad_()
    with pytest.raises(PruningError, match=r"all that is to be pruned is frozen \(0\.weight"):
        task.train(model, optimizer, 1)
    assert pruner.sparsity == 0


def test_weights_that_stand_are_pruned_on_request_and_before_a_training_anyway(task):
    model = task.net().requires_grad_(False)
    pruner = Pruner(model, Supermask(0.5, adaptive=True, sampling="round"), steps=30, frozen="prune")
    biases = [module.bias.requires_grad_() for module in model if isinstance(module, nn.Linear)]
    optimizer = torch.optim.Adam(biases, lr=1e-3)
    pruner.attach(optimizer)
    before = [weight.clone() for weight in pruner.raw().values()]
    task.train(model, optimizer, 30)
    assert all(torch.equal(a, b) for a, b in zip(pruner.raw().values(), before, strict=True))
    pruner.finalize()
    assert pruner.sparsity == 0.5
    assert Pruner(task.net().requires_grad_(False), Magnitude(0.5)).sparsity == 0.5


def test_masks_that_stand_still_are_not_moved_by_thawing(task, adam):
    model = task.net()
    optimizer = adam(model)
    pruner = Pruner(model, Supermask(0.9), steps=40).attach(optimizer)
    task.train(model, optimizer, 30)
    before = pruner.gates()
    before = {name: gates.clone() for name, gates in before.items()}
    model.requires_grad_(True)
    task.train(model, optimizer, 10)
    assert pruner.settled
    assert all(torch.equal(gates, before[name]) for name, gates in pruner.gates().items())
    pruner.finalize()


@pytest.mark.parametrize("name", ["supermask", "adaptive", "fisher"])
def test_what_no_loss_reads_keeps_its_mask(task, adam, name):
    model = nn.ModuleList([task.net(), nn.Linear(30, 30)])
    optimizer = adam(model)
    pruner = Pruner(model, METHODS[name], steps=40).attach(optimizer)
    with pytest.warns(LaconicWarning, match="never had a gradient") if name == "fisher" else nullcontext():
        task.train(model[0], optimizer, 40)
    assert pruner.near_target
    pruner.finalize()
    assert model[1].weight.count_nonzero() == 900
    assert sum(int(model[0][i].weight.count_nonzero()) for i in (0, 2, 4)) == 25856 - int(0.9 * 25856)
