"""Physical removal of pruned units: tensors become smaller, outputs stay those of the masked model.

    shrink(groups, {"vision_model.encoder.layers.0.self_attn": keep, ...})
    resize(model, model.config.slim_dims)         # the structure only, for weights that are loaded afterwards

Two things are easily lost here, and published code lost both: the biases of query, key and value, and the factor of
the softmax, which must stay that of the dense head dimension. Where a class derives it from its present one, the
difference goes into the query: q' = q sqrt(new / old), so q' k / sqrt(new) = q k / sqrt(old).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from laconic.compress.structured.adapters import adapter_of, find_groups
from laconic.compress.structured.groups import Adapter, Group, Groups
from laconic.errors import FormatError, PruningError, printable


def shrink(groups: Groups, keep: Mapping[str, Tensor]) -> nn.Module:
    """Removes units from the model of `groups`, in place; it then has other groups.

    A group that keeps nothing is removed whole: what is left of it is the bias of its output projection. Names and
    widths of the groups that changed go to `model.config.slim_dims` where the model has a configuration, and into what
    stands there. Parameters are new objects: make the optimizer afterwards, and take masks and hooks off before.

    Args:
        keep: by name of group, (size,) bool, True for units that stay. Groups that are missing here stay whole.

    Raises:
        PruningError: a name that no group has, a mask of another shape or type, or a class that no adapter knows.
    """
    by_name = {group.name: group for group in groups}
    for name, mask in keep.items():
        if name not in by_name:
            raise PruningError(f"no group is called '{printable(name)}'; find_groups(model) lists them")
        if mask.dtype != torch.bool or mask.shape != (by_name[name].size,):
            raise PruningError(
                f"what to keep of {name!r} must be bool of shape ({by_name[name].size},), "
                f"not {mask.dtype} of shape {tuple(mask.shape)}"
            )
    units = {name: mask.nonzero().squeeze(1) for name, mask in keep.items() if not bool(mask.all())}
    adapters = {name: _adapter(groups, by_name[name]) for name in units}
    for name, kept in units.items():
        _cut(groups.model, by_name[name], adapters[name], kept)
    _record(groups.model, {name: len(kept) for name, kept in units.items()})
    return groups.model


def resize(model: nn.Module, widths: Mapping[str, int], *, adapters: Mapping[str, Adapter] | None = None) -> nn.Module:
    """Gives a dense model the widths of a slim one, in place, for weights that are loaded afterwards.

    The weights left are the first of each group and mean nothing. Works on the meta device.

    Args:
        widths: units by name of group, as in `config.slim_dims`; groups that are missing here stay whole.
        adapters: as in `find_groups`.

    Raises:
        FormatError: no table, a name that no group of the model has, or a width that is none or exceeds its group.
    """
    if not isinstance(widths, Mapping):
        raise FormatError(f"slim_dims must be a table of names and widths, not {type(widths).__name__}")
    if not widths:
        return model
    groups = find_groups(model, adapters=adapters)
    by_name = {group.name: group for group in groups}
    for name, width in widths.items():
        if name not in by_name:
            raise FormatError(f"slim_dims names '{printable(name)}', which is no group of {type(model).__name__}")
        size = by_name[name].size
        if not isinstance(width, int) or isinstance(width, bool) or not 0 <= width <= size:
            raise FormatError(f"slim_dims gives {name!r} the width {width!r}; it must be a number from 0 to {size}")
    for name, width in widths.items():
        if width < by_name[name].size:
            _cut(model, by_name[name], groups.adapters[name], torch.arange(width))
    _record(model, widths)
    return model


def _adapter(groups: Groups, group: Group) -> Adapter:
    adapter = groups.adapters.get(group.name) or adapter_of(groups.model.get_submodule(group.name))
    if adapter is None and group.kind == "attention":
        raise PruningError(f"no adapter says how attention {group.name!r} takes another width; use find_groups")
    return adapter or Adapter("feed_forward", group.producers, group.consumers)


def _cut(model: nn.Module, group: Group, adapter: Adapter, kept: Tensor) -> None:
    """Leaves the units `kept` (width,) of one group."""
    layers = {path: model.get_submodule(path) for path in (*group.producers, *group.consumers)}
    for path in group.producers:
        _select(layers[path], kept, group.size, rows=True)
    for path in group.consumers:
        _select(layers[path], kept, group.size, rows=False)
    width = len(kept)
    if adapter.kind == "attention":
        if adapter.scale != "kept" and width:
            change = math.sqrt(width / group.size)
            _scale(layers[group.producers[0]], change if adapter.scale == "width" else math.sqrt(change))
        _adopt(model, group.name, adapter, width)


def _select(layer: nn.Module, kept: Tensor, size: int, *, rows: bool) -> None:
    """Keeps the outputs (rows) or inputs of a linear layer that belong to the units `kept`: r mod size is in it."""
    if not isinstance(layer, nn.Linear):
        raise PruningError(f"only nn.Linear can be shrunk, not {type(layer).__name__}")
    weight = layer.weight
    kept = kept.to(weight.device)
    repeats = (layer.out_features if rows else layer.in_features) // size
    starts = torch.arange(repeats, device=weight.device) * size
    index = (starts.unsqueeze(1) + kept).flatten()
    layer.weight = _parameter(weight, index, 0 if rows else 1)
    if rows:
        layer.out_features = len(index)
        if layer.bias is not None:
            layer.bias = _parameter(layer.bias, index, 0)
    else:
        layer.in_features = len(index)


def _parameter(old: Tensor, index: Tensor, dim: int) -> nn.Parameter:
    return nn.Parameter(old.detach().index_select(dim, index), requires_grad=old.requires_grad)


def _scale(query: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in query.parameters(recurse=False):
            parameter.mul_(factor)


def _adopt(model: nn.Module, name: str, adapter: Adapter, width: int) -> None:
    """Tells an attention module its new head dimension, or puts the module that takes over in its place."""
    old = model.get_submodule(name)
    if adapter.slim is not None:
        new = adapter.slim(old)
    elif not width and adapter.absent is not None:
        inside = [path for path in adapter.consumers if not path.startswith("../")]
        new = adapter.absent(old, inside[0] if inside else "")
    else:
        new = old
        if adapter.head_size:
            setattr(new, adapter.head_size, width)
        if adapter.all_heads:
            setattr(new, adapter.all_heads, width * getattr(new, adapter.heads))
    if new is not old:
        _replace(model, old, new.train(old.training))


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a module in the place of another, wherever that stands."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def _record(model: nn.Module, widths: Mapping[str, int]) -> None:
    config = getattr(model, "config", None)
    if widths and hasattr(config, "to_dict"):  # a configuration of transformers
        config.slim_dims = {**(getattr(config, "slim_dims", None) or {}), **widths}  # type: ignore[union-attr]
