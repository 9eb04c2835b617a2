"""Where weights live: the matrices of a module, and all places that share one of them.

Knows nothing of masks.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from laconic.errors import PruningError

Where = Callable[[str, Tensor], bool]

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def prunable(model: nn.Module, where: Where | None = None) -> dict[str, list[tuple[nn.Module, str]]]:
    """Weights to mask: name of the first site -> all sites (module, parameter name); tied weights have several, and
    are chosen where `where` accepts one of their names.

    Raises PruningError where nothing matches.
    """
    sites: dict[int, tuple[str, list[tuple[nn.Module, str]]]] = {}
    chosen: set[int] = set()
    seen: list[str] = []
    for prefix, module in model.named_modules():
        if isinstance(module, NORMS) or "parametrizations" in prefix.split("."):
            continue
        for attribute, weight in _matrices(module):
            name = f"{prefix}.{attribute}" if prefix else attribute
            seen.append(name)
            sites.setdefault(id(weight), (name, []))[1].append((module, attribute))
            if where is None or where(name, weight):
                chosen.add(id(weight))
    if not chosen:
        raise PruningError(
            "no weight to prune: the model has no matrices"
            if not seen
            else f"no weight to prune: `where` refused all of {', '.join(seen[:8])}"
            + (f" and {len(seen) - 8} more" if len(seen) > 8 else "")
        )
    return dict(found for key, found in sites.items() if key in chosen)


def _matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters of two or more dimensions, masked ones too; attention's bias_k is a bias."""
    own: dict[str, Any] = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    if parametrize.is_parametrized(module):
        held = module.parametrizations
        own |= {name: held[name].original for name in held if hasattr(held[name], "original")}  # type: ignore
    for name, parameter in own.items():
        if parameter.ndim >= 2 and not name.startswith("bias"):
            yield name, parameter
