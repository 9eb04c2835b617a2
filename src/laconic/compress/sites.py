"""Where weights live: the matrices of a module, and all places that share one of them.

Knows nothing of masks.
"""

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from laconic.compress.stacking import Sites, recomputed
from laconic.errors import PruningError

Where = Callable[[str, Tensor], bool]

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def prunable(model: nn.Module, where: Where | None = None, verb: str = "prune") -> dict[str, Sites]:
    """Weights to mask or to quantise: name of the first site -> all sites; tied weights have several, and are chosen
    where `where` accepts one of their names. A weight that is computed from other parameters counts once, under the
    name by which the layer reads it.

    Raises PruningError where nothing matches, there being nothing to `verb`, and for a lazy module that has no weights
    yet.
    """
    sites: dict[int, tuple[str, Sites]] = {}
    chosen: set[int] = set()
    seen: list[str] = []
    for prefix, module in model.named_modules():
        if isinstance(module, NORMS) or "parametrizations" in prefix.split("."):
            continue
        for attribute, weight in _matrices(module, prefix):
            name = f"{prefix}.{attribute}" if prefix else attribute
            seen.append(name)
            sites.setdefault(id(weight), (name, []))[1].append((module, attribute))
            if where is None or where(name, weight):
                chosen.add(id(weight))
    if not chosen:
        raise PruningError(
            f"no weight to {verb}: the model has no matrices"
            if not seen
            else f"no weight to {verb}: `where` refused all of {', '.join(seen[:8])}"
            + (f" and {len(seen) - 8} more" if len(seen) > 8 else "")
        )
    return dict(found for key, found in sites.items() if key in chosen)


def refuse_unusable(name: str, weight: Tensor) -> None:
    """PruningError for a weight without values (a meta tensor), or of other than floating-point numbers."""
    if not weight.is_floating_point():
        kind = str(weight.dtype).removeprefix("torch.")
        raise PruningError(f"{name} holds {kind}, and floating-point weights alone are pruned; leave it out by `where`")
    if weight.is_meta:
        raise PruningError(f"{name} has no values (it is on the meta device): load the model's weights first")


def _matrices(module: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """A module's own tensors of two or more dimensions by the names its forward pass reads, with the trained tensor
    below each; attention's bias_k is a bias."""
    own: dict[str, Tensor | None] = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    if parametrize.is_parametrized(module):
        for name, held in module.parametrizations.items():  # type: ignore
            own[name] = max(held.parameters(recurse=False), key=Tensor.numel, default=None)
    for name in filter(None, map(recomputed, module._forward_pre_hooks.values())):
        parts = [own.pop(part) for part in (f"{name}_g", f"{name}_v", f"{name}_orig") if part in own]
        own[name] = parts[-1] if parts else None
    for name, parameter in own.items():
        if name.startswith("bias") or parameter is None:
            continue
        if is_lazy(parameter):
            raise PruningError(
                f"{prefix}.{name}".lstrip(".") + f" has no shape yet ({type(module).__name__}): run the model once on "
                "a batch before it is pruned"
            )
        if parameter.ndim >= 2:
            yield name, parameter
