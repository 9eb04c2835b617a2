"""Which modules of which classes hold units to prune: `find_groups`, and the table of classes it knows.

    groups = find_groups(model)
    groups = find_groups(model, {"pixel_values": images, "input_ids": words})     # with multiply-adds

Classes are known by name, so nothing of transformers is imported here. A class that is not in the table is taught with
an `Adapter` of its own: find_groups(model, adapters={"MyAttention": Adapter(...)}); docs/EXTEND.md shows one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from laconic.compress.modes import evaluated
from laconic.compress.structured.groups import Adapter, Group, Groups
from laconic.compress.structured.takeover import AbsentAttention, AbsentTextAttention, SlimBlipAttention
from laconic.errors import PruningError

Inputs = Mapping[str, Any] | Callable[[nn.Module], object]


def _packed_pairs(_: object, packing: Any, seen: Any, *__: object, **___: object) -> int:
    """Pairs of query and key in laconic's own attention, padding included: it is computed like the rest."""
    return int(packing.groups * packing.length * seen.keys.shape[2])


_VIT = Adapter(
    "attention", ("q_proj", "k_proj", "v_proj"), ("o_proj",),
    heads="num_attention_heads", head_size="head_dim", absent=AbsentAttention,
)  # fmt: skip
_BLIP = Adapter("attention", ("qkv",), ("projection",), heads="num_heads", slim=SlimBlipAttention)
_OURS = Adapter("attention", ("query", "key", "value"), ("output",), heads="heads", scale="width", pairs=_packed_pairs)
_TWO_LAYERS = Adapter("feed_forward", ("fc1",), ("fc2",))

ADAPTERS: Mapping[str, Adapter] = {
    "ViTAttention": _VIT,
    "DeiTAttention": _VIT,
    "CLIPAttention": Adapter(
        "attention", ("q_proj", "k_proj", "v_proj"), ("out_proj",),
        heads="num_heads", head_size="head_dim", absent=AbsentAttention,
    ),
    "BlipAttention": _BLIP,
    "SlimBlipAttention": replace(_BLIP, slim=None),
    "BlipTextSelfAttention": Adapter(
        "attention", ("query", "key", "value"), ("../output.dense{index}",),
        heads="num_attention_heads", head_size="attention_head_size", all_heads="all_head_size", scale="width",
        absent=AbsentTextAttention,
    ),
    "laconic.models.transformer.Attention": _OURS,
    "laconic.models.transformer.KeyValueAttention": replace(_OURS, producers=("query", "key_value")),
    "laconic.models.transformer.QueryKeyAttention": replace(_OURS, producers=("query_key", "value"), scale="root"),
    "ViTMLP": _TWO_LAYERS,
    "DeiTMLP": _TWO_LAYERS,
    "CLIPMLP": _TWO_LAYERS,
    "BlipMLP": _TWO_LAYERS,
    "BlipTextIntermediate": Adapter("feed_forward", ("dense",), ("../output.dense",)),
    "laconic.models.transformer.FeedForward": Adapter("feed_forward", ("inner",), ("outer",)),
}  # fmt: skip

_TOWERS = {"vit": "vision", "deit": "vision", "vision_model": "vision", "text_model": "text"}


def find_groups(
    model: nn.Module,
    inputs: Inputs | None = None,
    *,
    where: Callable[[Group], bool] | None = None,
    adapters: Mapping[str, Adapter] | None = None,
) -> Groups:
    """All groups of units in a model, in the order of its modules; a module that stands at several paths once.

    Args:
        inputs: of one forward pass, as keywords or as a function that runs it, for the multiply-adds of a unit.
        where: which groups to prune; the others stay whole.
        adapters: of further classes, by name, with or without module path; they go before the table's.

    Raises:
        PruningError: an attention class that no adapter knows, an adapter that does not fit, a weight that two
            groups share, or no group at all.
    """
    known = {**ADAPTERS, **(adapters or {})}
    found: dict[str, tuple[Group, Adapter]] = {}
    for path, module in model.named_modules():
        adapter = adapter_of(module, known)
        if adapter is not None:
            group = _group(model, path, module, adapter)
            if group.size and (where is None or where(group)):
                found[path] = group, adapter
        elif _is_attention(module):
            raise PruningError(
                f"no adapter knows attention of class {type(module).__name__} at {path!r}: pass adapters="
                f"{{{type(module).__name__!r}: Adapter(...)}}, which docs/EXTEND.md explains"
            )
    if not found:
        raise PruningError(
            f"{type(model).__name__} holds no attention or feed-forward network to prune"
            + (" where `where` asks for it" if where else "")
            + ": pass adapters={class name: Adapter(...)}, which docs/EXTEND.md explains"
        )
    _refuse_shared(model, [group for group, _ in found.values()])
    by_name = {name: adapter for name, (_, adapter) in found.items()}
    groups = Groups(model, tuple(group for group, _ in found.values()), by_name)
    return groups if inputs is None else _with_macs(groups, inputs)


def _refuse_shared(model: nn.Module, groups: list[Group]) -> None:
    """Weights that two groups share would have to lose the same units twice."""
    owners: dict[int, str] = {}
    for group in groups:
        for path, linear in _layers(model, (*group.producers, *group.consumers)):
            owner = owners.setdefault(id(linear.weight), group.name)
            if owner != group.name:
                raise PruningError(
                    f"{path!r} shares its weight with {owner!r}, so their units cannot go apart: leave one of them "
                    f"out with `where`, or untie them"
                )


def adapter_of(module: nn.Module, known: Mapping[str, Adapter] = ADAPTERS) -> Adapter | None:
    """The adapter of a module's class, or of the nearest class it derives from."""
    for cls in type(module).__mro__:
        for name in (f"{cls.__module__}.{cls.__qualname__}", cls.__name__):
            if name in known:
                return known[name]
    return None


def _is_attention(module: nn.Module) -> bool:
    """Whether it looks like attention with projections of its own, which must not go unnoticed."""
    if isinstance(module, nn.MultiheadAttention):
        return True
    linear = [name for name, child in module.named_children() if isinstance(child, nn.Linear)]
    return type(module).__name__.endswith("Attention") and (len(linear) >= 3 or any("qkv" in name for name in linear))


def _group(model: nn.Module, path: str, module: nn.Module, adapter: Adapter) -> Group:
    producers = tuple(_resolve(path, each) for each in adapter.producers)
    consumers = tuple(_resolve(path, each) for each in adapter.consumers)
    inner = [_linear(model, each, path) for each in producers]
    outer = [_linear(model, each, path) for each in consumers]
    repeats = getattr(module, adapter.heads, None) if adapter.kind == "attention" else 1
    if not isinstance(repeats, int):
        raise PruningError(f"{type(module).__name__} at {path!r} has no number of heads {adapter.heads!r}")
    fused = 3 if adapter.kind == "attention" and len(producers) == 1 else 1
    size = inner[0].out_features // (repeats * fused)
    wrong = [layer for layer in inner if layer.out_features != size * repeats * fused]
    if wrong or any(layer.in_features != size * repeats for layer in outer):
        raise PruningError(
            f"the layers of {type(module).__name__} at {path!r} do not agree on {repeats} heads of {size} units: "
            f"its adapter names wrong layers, or keys and queries of it are grouped"
        )
    cost = sum((layer.out_features // size) * _row(layer) for layer in inner) if size else 0
    cost += sum(repeats * layer.out_features for layer in outer)
    return Group(path, adapter.kind, _part(path, adapter), size, producers, consumers, cost)


def _row(linear: nn.Linear) -> int:
    """Parameters of one output."""
    return linear.in_features + (linear.bias is not None)


def _resolve(path: str, relative: str) -> str:
    """Path in the model of a layer that an adapter names.

    >>> _resolve("layer.0.crossattention.self1", "../output.dense{index}")
    'layer.0.crossattention.output.dense1'
    """
    parts = path.split(".") if path else []
    index = re.search(r"\d*$", parts[-1])[0] if parts else ""  # type: ignore[index]  # matches the empty string
    while relative.startswith("../"):
        parts, relative = parts[:-1], relative[3:]
    return ".".join([*parts, relative.format(index=index)])


def _linear(model: nn.Module, path: str, holder: str) -> nn.Linear:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        layer = None  # type: ignore[assignment]
    if not isinstance(layer, nn.Linear):
        raise PruningError(f"the adapter of {holder!r} names {path!r}, which is no nn.Linear of the model")
    return layer


def _part(path: str, adapter: Adapter) -> str:
    """Tower and role, such as "text decoder cross"."""
    head, *rest = path.split(".")
    tower = _TOWERS.get(head, head.replace("_", " ")) if rest else ""
    role = "self" if rest and rest[-1] == "self" else "attention"
    if adapter.kind == "feed_forward":
        role = "feed-forward"
    elif "cross" in path or "memory_attention" in path:
        role = "cross"
    return f"{tower} {role}".lstrip()


def _with_macs(groups: Groups, inputs: Inputs) -> Groups:
    """The same groups with the multiply-adds of a unit, counted in one forward pass in eval mode."""
    model = groups.model
    calls: dict[str, list[torch.Size]] = {}  # by path of a linear layer: shapes of its inputs
    pairs: dict[str, int] = {}  # by name of a group whose adapter counts them itself
    modules = dict(model.named_modules())
    handles = [
        modules[path].register_forward_pre_hook(_note(calls.setdefault(path, [])))
        for path in dict.fromkeys(path for group in groups for path in (*group.producers, *group.consumers))
    ]
    for name, adapter in groups.adapters.items():
        if adapter.pairs is not None:
            handles.append(modules[name].register_forward_pre_hook(_count(pairs, name, adapter), with_kwargs=True))
    try:
        with evaluated(model), torch.no_grad():
            inputs(model) if callable(inputs) else model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    counted = (replace(group, macs=_macs(groups, group, calls, pairs)) for group in groups)
    return replace(groups, groups=tuple(counted))


def _note(shapes: list[torch.Size]) -> Callable[..., None]:
    return lambda _, args: shapes.append(args[0].shape)


def _count(pairs: dict[str, int], name: str, adapter: Adapter) -> Callable[..., None]:
    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pairs[name] = pairs.get(name, 0) + adapter.pairs(*args, **kwargs)  # type: ignore[misc]  # set: see caller

    return add


def _macs(groups: Groups, group: Group, calls: Mapping[str, list[torch.Size]], pairs: Mapping[str, int]) -> int:
    """Multiply-adds of one unit: its rows, its columns, and of attention a product for each pair, twice."""
    total = 0
    for path, linear in _layers(groups.model, (*group.producers, *group.consumers)):
        rows = sum(shape[:-1].numel() for shape in calls[path])
        produces = path in group.producers
        ours, others = linear.out_features, linear.in_features
        total += rows * (others * (ours // group.size) if produces else ours * (others // group.size))
    if group.kind == "feed_forward":
        return total
    if groups.adapters[group.name].pairs is not None:
        seen = pairs.get(group.name, 0)
    else:
        query, key = group.producers[0], group.producers[min(1, len(group.producers) - 1)]
        if len(calls[query]) != len(calls[key]):
            raise PruningError(f"query and key of {group.name!r} are not called together: its adapter needs `pairs`")
        seen = sum(q[:-1].numel() * k[-2] for q, k in zip(calls[query], calls[key], strict=True))
    heads = int(getattr(groups.model.get_submodule(group.name), groups.adapters[group.name].heads))
    return total + 2 * heads * seen


def _layers(model: nn.Module, paths: tuple[str, ...]) -> Iterator[tuple[str, nn.Linear]]:
    for path in paths:
        layer = model.get_submodule(path)
        if isinstance(layer, nn.Linear):
            yield path, layer
