"""One driver for every score: moments are an optimizer's own or refused."""

import pytest
import torch
from torch import nn

from laconic import config
from laconic.compress.masked.fisher import Fisher
from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.magnitude import Gradual, Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.ranking import keep_largest
from laconic.compress.masked.schedule import Cubic
from laconic.compress.masked.snip import Snip
from laconic.compress.masked.supermask import Supermask
from laconic.errors import PruningError


def test_options_are_read_from_tables():
    table = {"sparsity": 0.8, "scope": "uniform", "schedule": {"start": 4, "end": 16, "interval": 3}}
    assert config.from_mapping(table, Gradual, "here") == Gradual(0.8, "uniform", schedule=Cubic(4, 16, 3))
    assert config.from_mapping(table, Fisher, "here") == Fisher(0.8, "uniform", Cubic(4, 16, 3))
    assert config.from_mapping({"sparsity": 0.8, "batches": 2}, Snip, "here").batches == 2
    for kind in (Supermask, Magnitude, Gradual, Fisher, Snip):
        method = config.from_mapping({"sparsity": 0.8}, kind, "here")
        assert config.from_mapping(config.to_mapping(method), kind, "here") == method


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Magnitude(0.5, centred=True), "leave it out"),
        (lambda: Snip(0.5, batches=0), "batches = 0"),
        (lambda: Magnitude(0.5, parts={"0": 1.0}), "sparsity of 0 1.0 is not possible"),
        (lambda: Fisher(0.5, parts={"0": "most"}), "parts: 0 = 'most'; give a sparsity"),
    ],
)
def test_options_that_are_not_possible(make, message):
    with pytest.raises(PruningError, match=message):
        make()


def test_parts_are_ranked_among_themselves():
    """All weights of the first layer are smaller, and would all go first."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        model[0].weight.mul_(0.01)
    pruner = Pruner(model, Magnitude(0.75, parts={"0": 0.25}), steps=1)
    assert {name: int(keep.sum()) for name, keep in pruner.masks().items()} == {"0.weight": 48, "1.weight": 16}
    assert pruner.target == 0.5
    smaller = model[0].weight.detach().abs().flatten().topk(16, largest=False).values.max()
    pruner.finalize()
    assert model[0].weight[model[0].weight != 0].abs().min() > smaller


def test_the_longest_beginning_of_a_name_counts():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4))
    kept = Pruner(model, Magnitude(0.0, parts={"0": 0.5, "0.1": 0.75}), steps=1).masks()
    assert {name: int(keep.sum()) for name, keep in kept.items()} == {"0.0.weight": 8, "0.1.weight": 4, "1.weight": 16}


def test_a_schedule_brings_every_part_to_its_sparsity():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    pruner = Pruner(model, Gradual(0.9, schedule=Cubic(0, 8, 4), parts={"1": 0.5}), steps=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.attach(optimizer)
    counts = []
    for _ in range(10):
        model(torch.randn(4, 10)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        counts.append([int(keep.sum()) for keep in pruner.masks().values()])
    assert counts[3] == [100 - 78, 100 - 43]  # s (1 - 1/8)
    assert counts[-1] == [10, 50]


def test_a_part_without_weights_is_refused():
    with pytest.raises(PruningError, match=r"no weight to prune in 'encodr'; there are 0\.weight, 1\.weight"):
        Pruner(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), Magnitude(0.5, parts={"encodr": 0.5}), steps=1)


def test_facts_tell_methods_apart():
    facts = {
        type(m).__name__: (m.needs_steps, m.needs_losses, m.needs_moments, m.needs_ticket, m.moves_masks)
        for m in (Supermask(0.5), Magnitude(0.5), Gradual(0.5), Fisher(0.5), Snip(0.5))
    }
    assert facts == {
        "Supermask": (True, False, False, False, True),
        "Magnitude": (False, False, False, False, True),
        "Gradual": (True, False, False, False, True),
        "Fisher": (True, False, True, False, True),
        "Snip": (False, True, False, False, True),
    }
    assert [m.losses_wanted for m in (Supermask(0.5), Magnitude(0.5), Snip(0.5), Snip(0.5, batches=3))] == [0, 0, 1, 3]
    assert [Frozen().moves_masks, Frozen({}).moves_masks] == [False, True]


def test_scores_that_are_not_numbers_are_named():
    with pytest.raises(PruningError, match="b cannot be ranked"):
        keep_largest({"a": torch.ones(3), "b": torch.tensor([1.0, torch.nan])}, 0.5)


# Second moments


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop"])
def test_fisher_reads_the_moments_of_any_optimizer_that_has_some(task, kind):
    model = task.net()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3)
    pruner = Pruner(model, Fisher(0.9), steps=40).attach(optimizer)
    task.train(model, optimizer, 40)
    pruner.finalize()
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-4)
    upper, lower = (int(half.count_nonzero()) for half in model[2].weight.chunk(2))
    assert 0.5 < upper / lower < 2  # not by position


@pytest.mark.parametrize("kind", ["Adamax", "SGD", "Adagrad", "Adafactor", "Rprop"])
def test_fisher_refuses_optimizers_without_second_moments_by_name(task, kind):
    model = task.net()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3)
    with pytest.raises(PruningError, match=f"second moments, which {kind} lacks: attach the pruner to an Adam"):
        Pruner(model, Fisher(0.9), steps=40).attach(optimizer)


class Foreign(torch.optim.Adamax):
    """An optimizer from elsewhere, of which nothing is known before it has made a step."""


def test_an_unknown_optimizer_is_refused_at_its_first_step(task):
    model = task.net()
    optimizer = Foreign(model.parameters(), lr=1e-3)
    Pruner(model, Fisher(0.9), steps=40).attach(optimizer)
    with pytest.raises(PruningError, match="which Foreign lacks"):
        task.train(model, optimizer, 1)


def test_of_nothing_nothing_is_kept():
    assert keep_largest({}, 0.5) == {}
