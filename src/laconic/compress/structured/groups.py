"""Groups of units that live and die together in a Transformer, with what each unit costs.

    groups = find_groups(blip, inputs=inputs)     # laconic.compress.structured.adapters
    groups[0].name, groups[0].size, groups[0].parameters, groups[0].macs

A unit of attention is one index of the head dimension, in all heads at once: rows of query, key and value, columns of
the output projection. A unit of a feed-forward network is a row of its first matrix and a column of its second
(UPop, section 3; arXiv 2301.13741). What stays is a regular tensor, so a slim model needs no special kernel.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args, overload

from torch import nn

from laconic.compress.structured.methods import Budget
from laconic.errors import PruningError

Kind = Literal["attention", "feed_forward"]


@dataclass(frozen=True)
class Adapter:
    """What structured pruning has to know of one class of modules.

    Paths are relative to the module. `../` leads to the module that holds it; `{index}` stands for the digits that
    end the module's own name, so that `self1` writes to `../output.dense1` and `self` to `../output.dense`. The
    activation of a feed-forward network must map 0 to 0, as ReLU, GELU and SiLU do.

    Attributes:
        kind: what the units are.
        producers: linear layers whose outputs are the units. Of attention: query, key and value in this order, or
            one layer that makes all three, one after the other, each split into heads.
        consumers: linear layers that read them.
        heads: attribute with the number of heads, for attention.
        head_size: attribute with the head dimension, set anew when units go; "": the class reads it off its tensors.
        all_heads: attribute with heads x head dimension, set likewise; "": there is none.
        scale: "kept": the factor of the softmax is an attribute that stays as it is. "width": the class takes
            1 / sqrt(head dimension) anew, so the change goes into the query. "root": as "width", of a class whose first
            layer makes queries and keys, which take the root of the change each.
        slim: makes the module that takes over where the class cannot have another head dimension.
        absent: makes the module that takes over when no unit is left, given the module and the name of the consumer
            inside it ("" where it lies outside); None: the class copes with width 0.
        pairs: counts pairs of query and key in one call, given the call's arguments, where the inputs of query and
            key are not (batch, rows, width).
    """

    kind: Kind
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    heads: str = ""
    head_size: str = ""
    all_heads: str = ""
    scale: Literal["kept", "width", "root"] = "kept"
    slim: Callable[[nn.Module], nn.Module] | None = None
    absent: Callable[[nn.Module, str], nn.Module] | None = None
    pairs: Callable[..., int] | None = None


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
        macs: multiply-adds that one unit costs for the given inputs; 0 where none were given, or where they do not
            reach the group.
    """

    name: str
    kind: Kind
    part: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    parameters: int
    macs: int = 0

    def cost(self, budget: Budget) -> int:
        """Of one unit in a budget. PruningError for one that there is not, or of which the group tells nothing."""
        if budget == "mask-count":
            return 1
        if budget == "parameters":
            return self.parameters
        if budget != "macs":
            raise PruningError(f"budget={budget!r}; give one of {', '.join(get_args(Budget))}")
        if not self.macs:
            raise PruningError(
                f"{self.name} tells no multiply-adds; give find_groups(model, inputs) inputs that reach all of it"
            )
        return self.macs


@dataclass(frozen=True, eq=False)
class Groups(Sequence[Group]):
    """All groups of a model, and the model that they are of.

    Attributes:
        adapters: by name of group, how its module takes other widths; `shrink` needs it for attention.
    """

    model: nn.Module
    groups: tuple[Group, ...]
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

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
