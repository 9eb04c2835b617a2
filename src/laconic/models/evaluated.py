"""A module as a search runs it: in evaluation mode, its masked weights multiplied out.

`eval()` and `torch.nn.utils.parametrize.cached()` do the same for the whole process: another thread that searches, or
trains, would see its module change mode, and tensors of the other's in the cache. A view is one thread's own.
"""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def evaluated(model: M, *, as_drawn: bool = False) -> M:
    """A view of the module in evaluation mode that shares its parameters and buffers; the module is not touched.

    Parametrized weights are computed once, now: as evaluation has them, or, with `as_drawn`, as the module gives them
    in its own mode, a supermask in training as it is drawn for this step. Where the module is in evaluation mode with
    nothing to compute, it is its own view.
    """
    if any(module.training or parametrize.is_parametrized(module) for module in model.modules()):
        return cast(M, _view(model, {}, as_drawn))
    return model


def _view(module: nn.Module, made: dict[int, nn.Module], as_drawn: bool) -> nn.Module:
    if id(module) in made:
        return made[id(module)]
    kind: Any = parametrize.type_before_parametrizations(module)
    view: nn.Module = kind.__new__(kind)
    made[id(module)] = view
    view.__dict__ = {**module.__dict__, "training": False}
    view._parameters, view._buffers = dict(module._parameters), dict(module._buffers)
    view._modules = {
        name: child if child is None else _view(child, made, as_drawn)
        for name, child in module._modules.items()
        if name != "parametrizations"
    }
    if parametrize.is_parametrized(module):
        computing = cast(nn.ModuleDict, module.parametrizations)
        for name, weight in computing.items():
            value: Tensor = getattr(module, name) if as_drawn else _view(weight, made, False)()
            view._parameters[name] = nn.Parameter(value, requires_grad=False)
    return view
