"""What stands between a weight and those who use it, and in which order.

A Transform is a parametrization (`torch.nn.utils.parametrize`) of laconic's own: weight in, tensor of the same shape
out. Several of them stack on one weight, masks first and quantisers after, whichever came first in time: a quantiser
then sees the zeros that will be stored. Masks multiply, so their order among themselves does not matter. Tied weights
share their transforms. Each one is taken off alone, and copies of the model keep theirs.

What others have put on a weight (weight norm, spectral norm, ...) computes it anew from other parameters. A mask baked
into those would not be a mask of what the layer multiplies with, so such weights are refused by name.
"""

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from laconic.errors import PruningError

MASK, QUANTISER = 0, 1
TAGS = itertools.count()  # tell whose transforms those of a copy are

Sites = list[tuple[nn.Module, str]]  # all places, (module, attribute), that share one weight


class Transform(nn.Module):
    """A parametrization of one tensor that keeps its shape.

    Attributes:
        order: its place in the stack, low ones first.
        tag: whose it is; copies have it, too.
        products: nothing but matrix products reads what it gives, so that autocast's type will do.
    """

    order: ClassVar[int]
    tag: int = -1
    products: bool = False


def transforms(module: nn.Module, attribute: str) -> list[nn.Module]:
    """The parametrizations of a tensor, in the order they are applied."""
    if not parametrize.is_parametrized(module, attribute):
        return []
    return list(module.parametrizations[attribute])  # type: ignore[index, call-overload, arg-type]


def refuse_foreign(name: str, module: nn.Module, attribute: str) -> None:
    """PruningError where something other than a Transform computes the tensor."""
    for transform in transforms(module, attribute):
        if not isinstance(transform, Transform):
            raise PruningError(
                f"{name} is computed by the parametrization {type(transform).__name__}; bake that in first with "
                f"torch.nn.utils.parametrize.remove_parametrizations(module, {attribute!r}), or leave {name} out by "
                "`where`"
            )
    for hook in module._forward_pre_hooks.values():
        if recomputed(hook) == attribute:
            raise PruningError(
                f"{name} is computed anew before each forward pass by {type(hook).__name__} (torch.nn.utils); take "
                f"that off first (remove_weight_norm, remove_spectral_norm, prune.remove), or leave {name} out by "
                "`where`"
            )


def recomputed(hook: Any) -> str | None:
    """Name of the tensor that a hook of torch.nn.utils (old weight and spectral norm, prune) writes, if it is one."""
    if not type(hook).__module__.startswith("torch.nn.utils."):
        return None
    name = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
    return name if isinstance(name, str) else None


def original(module: nn.Module, attribute: str) -> nn.Parameter:
    """The trained tensor below all transforms, where there are any."""
    if not parametrize.is_parametrized(module, attribute):
        return module.get_parameter(attribute)
    return module.parametrizations[attribute].original  # type: ignore


def shape(module: nn.Module, attribute: str) -> tuple[int, ...]:
    """Of a tensor, without computing it where transforms alone do that."""
    own = all(isinstance(transform, Transform) for transform in transforms(module, attribute))
    return tuple((original(module, attribute) if own else getattr(module, attribute)).shape)


def install(module: nn.Module, attribute: str, transform: Transform) -> None:
    """Puts a transform on a tensor, after those of the same order and before those of higher ones."""
    if parametrize.is_parametrized(module, attribute):
        held = cast(list[Transform], module.parametrizations[attribute])  # type: ignore
        place = sum(other.order <= transform.order for other in held)
        transform.train(module.training)
        held.insert(place, transform)
        for before in list(held)[:-1]:  # another transform reads what it gives
            before.products = False
        return
    before_all = None if parametrize.is_parametrized(module) else list(module._parameters)
    # unsafe: the check would make a draw of a learned mask, and a transform changes no shape
    parametrize.register_parametrization(module, attribute, transform, unsafe=True)
    if before_all is not None:
        module.parametrizations.parameter_order = before_all  # type: ignore


def remove(module: nn.Module, attribute: str, transform: Transform) -> None:
    """Takes one transform off again, with the trained tensor as it is."""
    held: nn.ModuleList = module.parametrizations[attribute]  # type: ignore
    if len(held) > 1:
        del held[list(held).index(transform)]
        return
    order = getattr(module.parametrizations, "parameter_order", [])
    # `parametrize` makes a class per module and takes the property from that class: a copy of the model has it too
    kind = type(module)
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)
    parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
    held_now = module._parameters  # optimizers and files know parameters by their order
    held_now.update({name: held_now.pop(name) for name in order if name in held_now})


def take_off(sites: Sites, transform: Transform) -> None:
    """Takes a transform off a weight wherever it lies; where it was the last one, all places share the weight again."""
    shared = original(*sites[0])
    for module, attribute in sites:
        remove(module, attribute, transform)
        if not transforms(module, attribute):
            setattr(module, attribute, shared)


def in_copy(
    model: nn.Module, copied: nn.Module, weights: Mapping[str, Sites], tag: int, what: str
) -> dict[str, tuple[Sites, Transform]]:
    """Name of each weight of `model` -> its places in a copy of the model, and the transform of that tag there.

    Raises PruningError, which calls the transform `what`, where one has none.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found: dict[str, tuple[Sites, Transform]] = {}
    for name, sites in weights.items():
        try:
            own = [(copied.get_submodule(paths[id(module)]), attribute) for module, attribute in sites]
        except AttributeError:
            own = []
        mine = [t for site in own[:1] for t in transforms(*site) if isinstance(t, Transform) and t.tag == tag]
        if not mine:
            raise PruningError(
                f"{name} has no {what} in what is to be finalized; give a copy that was made of the model while it "
                "was trained so (of an AveragedModel its .module)"
            )
        found[name] = own, mine[0]
    return found


def value(module: nn.Module, attribute: str, below: Transform) -> Tensor:
    """What a transform gets: the trained tensor, detached, after the masks that come before it."""
    found = original(module, attribute).detach()
    for transform in transforms(module, attribute):
        if transform is below:
            break
        found = transform(found).detach()
    return found
