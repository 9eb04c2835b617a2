"""Groups of units that live and die together in a Transformer, with what each unit costs.

    groups = find_groups(blip, inputs=inputs)     # laconic.compress.structured.adapters
    groups[0].name, groups[0].size, groups[0].parameters, groups[0].macs

A unit of attention is one index of the head dimension, in all heads at once: rows of query, key and value, columns of
the output projection. A unit of a feed-forward network is a row of its first matrix and a column of its second
(UPop, section 3; arXiv 2301.13741). What stays is a regular tensor, so a slim model needs no special kernel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from torch import nn

Kind = Literal["attention", "feed_forward"]


@dataclass(frozen=True)
class Group:
    """The units of one attention module or one feed-forward network.

    In every layer named here the unit is the index that runs fastest: output r of a producer and input r of a consumer
    belong to unit r mod size.

    Attributes:
        name: path of the module that holds the layers, in the model.
        kind: what the units are; z-scores are taken over all groups of one kind.
        part: where in the model it lies, such as "vision attention"; methods with a fixed ratio per part rank within.
        size: number of units: the head dimension, or the hidden width.
        producers: paths of the linear layers whose outputs are the units; a mask multiplies these outputs.
        consumers: paths of the linear layers that read them.
        parameters: that one unit costs, true ones: rows with their biases, and columns.
        macs: multiply-adds that one unit costs for the given inputs; 0 where none were given.
    """

    name: str
    kind: Kind
    part: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    parameters: int
    macs: int = 0


@dataclass(frozen=True, eq=False)
class Groups(Sequence[Group]):
    """All groups of a model, and the model that they are of."""

    model: nn.Module
    groups: tuple[Group, ...]

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | Sequence[Group]:
        return self.groups[index]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)
