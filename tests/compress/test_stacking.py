"""Transforms stack, masks first; what others have put on a weight is refused by name."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from laconic.compress import stacking
from laconic.compress.masked.frozen import Frozen
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.compress.stacking import QUANTISER, Transform
from laconic.errors import PruningError


class Halves(Transform):
    """A quantiser to multiples of one half."""

    order: ClassVar[int] = QUANTISER

    def forward(self, weight: Tensor) -> Tensor:
        return (weight * 2).round() / 2


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))


@pytest.mark.parametrize("quantiser_first", [True, False])
def test_a_quantiser_sees_the_masked_weight_whichever_came_first(quantiser_first):
    layer = nn.Linear(10, 10)
    before = layer.weight.detach().clone()
    halves = Halves()
    if quantiser_first:
        stacking.install(layer, "weight", halves)
    pruner = Pruner(layer, Magnitude(0.5))
    if not quantiser_first:
        stacking.install(layer, "weight", halves)
    keep = pruner.masks()["weight"]
    assert [type(t).__name__ for t in stacking.transforms(layer, "weight")] == ["FixedMask", "Halves"]
    assert torch.equal(layer.weight, halves(before * keep))
    pruner.finalize()
    assert stacking.transforms(layer, "weight") == [halves]
    assert torch.equal(layer.weight, halves(before * keep))
    stacking.remove(layer, "weight", halves)
    assert type(layer) is nn.Linear
    assert torch.equal(layer.weight, before * keep)


@pytest.mark.parametrize("first_off", [0, 1])
def test_masks_stack_and_what_is_pruned_already_goes_first(first_off):
    model = net()
    keep = {name: torch.rand(w.shape) > 0.5 for name, w in model.named_parameters() if w.ndim == 2}
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    pruners = [Pruner(model, Frozen(keep)), Pruner(model, Magnitude(0.8))]
    both = {name: mask & keep[name] for name, mask in pruners[1].masks().items()}
    assert sum(int(mask.sum()) for mask in both.values()) == 100 - 80
    for pruner in (pruners[first_off], pruners[1 - first_off]):
        pruner.finalize()
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.get_parameter(name), before[name] * mask) for name, mask in both.items())


def test_a_supermask_learns_under_another_mask_of_tied_weights():
    model = nn.ModuleDict({"words": nn.Embedding(20, 8), "output": nn.Linear(8, 20)})
    model["output"].weight = model["words"].weight
    first = Pruner(model, Magnitude(0.5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    second = Pruner(model, Supermask(0.75), steps=20).attach(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        model["output"](model["words"](torch.arange(20))).square().mean().backward()
        optimizer.step()
    assert torch.equal(model["words"].weight, model["output"].weight)
    first.finalize()
    second.finalize()
    assert model["words"].weight is model["output"].weight
    assert model["words"].weight.count_nonzero() <= 40


FOREIGN = {
    "_WeightNorm": parametrizations.weight_norm,
    "_SpectralNorm": parametrizations.spectral_norm,
    "_Orthogonal": parametrizations.orthogonal,
    "WeightNorm": weight_norm,
    "SpectralNorm": spectral_norm,
    "L1Unstructured": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("method", [Supermask(0.5), Magnitude(0.5)])
@pytest.mark.parametrize("kind", FOREIGN)
def test_weights_that_are_computed_are_refused_by_name_or_left_out(kind, method):
    model = net()
    FOREIGN[kind](model[2])
    keys = list(model.state_dict())
    with pytest.raises(PruningError, match=rf"2\.weight is computed .*{kind}.*remove"):
        Pruner(model, method, steps=5)
    assert list(model.state_dict()) == keys
    pruner = Pruner(model, method, steps=5, where=lambda name, _: not name.startswith("2"))
    assert list(pruner.masks()) == ["0.weight"]


@pytest.mark.parametrize("lazy", [lambda: nn.LazyLinear(3), lambda: nn.LazyConv2d(3, 2)])
def test_lazy_modules_are_refused_by_name(lazy):
    with pytest.raises(PruningError, match=r"1\.weight has no shape yet \(Lazy.*run the model once"):
        Pruner(nn.Sequential(nn.Linear(2, 2), lazy()), Magnitude(0.5))


def test_a_copy_keeps_its_transforms_when_the_original_loses_them():
    layer = nn.Linear(4, 4)
    halves = Halves()
    stacking.install(layer, "weight", halves)
    twin = copy.deepcopy(layer)
    stacking.remove(layer, "weight", halves)
    assert torch.equal(twin.weight, halves(layer.weight))
    stacking.remove(twin, "weight", stacking.transforms(twin, "weight")[0])
    assert type(twin) is nn.Linear
