"""A captioner's weights without the units that weigh least, so that a narrower captioner can begin with them.

A unit is a number that some weights make and others read: what reaches it and what reads it. Where either is all zero
the unit does nothing, and leaving it out changes nothing; such dead units go first. Which dimension of which weight is
of which units, a captioner says itself (`TorchCaptioner.units`).
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from laconic.errors import ConfigError

Units = Mapping[str, tuple[str, ...]]  # of each dimension of each weight: kinds of units, behind each other


def sizes_of(shapes: Mapping[str, Sequence[int]], units: Units) -> dict[str, int]:
    """How many there are of each kind of unit, by the dimensions that are of one kind alone."""
    return {kinds[0]: shapes[name][at] // len(kinds) for name, at, kinds in _dimensions(units) if len(set(kinds)) == 1}


def narrowed(weights: Mapping[str, Tensor], units: Units, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Weights of as many units of each kind as `widths` says; those that are kept stay in their order.

    Raises ConfigError where there are fewer, or a weight has other dimensions than `units` says.
    """
    sizes = sizes_of({name: weight.shape for name, weight in weights.items()}, units)
    kept = {}
    for unit, width in widths.items():
        if width > sizes[unit]:
            raise ConfigError(
                f"inherit: {width} {unit} units, where the larger captioner has {sizes[unit]}; ask for fewer"
            )
        kept[unit] = _worth(weights, units, sizes, unit).argsort(descending=True, stable=True)[:width].sort().values
    left = dict(weights)
    for name, at, kinds in _dimensions(units):
        if weights[name].shape[at] != sum(sizes[kind] for kind in kinds):
            raise ConfigError(f"inherit: {name} has {weights[name].shape[at]} places, which is not {' + '.join(kinds)}")
        starts = torch.tensor([0, *(sizes[kind] for kind in kinds)]).cumsum(0)
        places = [kept[kind] + start for kind, start in zip(kinds, starts[:-1], strict=True)]
        left[name] = left[name].index_select(at, torch.cat(places))
    return left


def _worth(weights: Mapping[str, Tensor], units: Units, sizes: Mapping[str, int], unit: str) -> Tensor:
    """Of each unit: sum of squares of what reaches it, times that of what reads it."""
    reached, read = torch.zeros(2, sizes[unit], dtype=torch.float64)
    for name, at, kinds in _dimensions(units):
        squares = weights[name].double().square().movedim(at, 0).reshape(weights[name].shape[at], -1).sum(1)
        # Rows make what columns read; but a table of words is looked up, and its columns are what is made.
        into = reached if at == 0 or name == "embedding.weight" else read
        for kind, part in zip(kinds, squares.split([sizes[kind] for kind in kinds]), strict=True):
            if kind == unit:
                into += part
    worth: Tensor = reached * read
    return worth


def _dimensions(units: Units) -> Iterator[tuple[str, int, list[str]]]:
    for name, dimensions in units.items():
        for at, dimension in enumerate(dimensions):
            if dimension:
                yield name, at, dimension.split()
