"""Laconic: make image captioners small and fast.

Names are loaded when they are first used, so that scoring captions or reading a file does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic import data, metrics, store
    from laconic.captioner import ImageCaptioner, load
    from laconic.compress.fisher import Fisher
    from laconic.compress.frozen import Frozen
    from laconic.compress.magnitude import Magnitude
    from laconic.compress.prune import Pruner
    from laconic.compress.schedule import Cubic
    from laconic.compress.snip import Snip
    from laconic.compress.supermask import Supermask
    from laconic.decode import Decoding
    from laconic.errors import LaconicError
    from laconic.text import Vocabulary

__version__ = "0.1.0"

_HOME = {  # public name -> module that defines it; a module is its own home
    "Cubic": "laconic.compress.schedule",
    "Decoding": "laconic.decode",
    "Fisher": "laconic.compress.fisher",
    "Frozen": "laconic.compress.frozen",
    "ImageCaptioner": "laconic.captioner",
    "LaconicError": "laconic.errors",
    "Magnitude": "laconic.compress.magnitude",
    "Pruner": "laconic.compress.prune",
    "Snip": "laconic.compress.snip",
    "Supermask": "laconic.compress.supermask",
    "Vocabulary": "laconic.text",
    "data": "laconic.data",
    "load": "laconic.captioner",
    "metrics": "laconic.metrics",
    "store": "laconic.store",
}

__all__ = [
    "Cubic",
    "Decoding",
    "Fisher",
    "Frozen",
    "ImageCaptioner",
    "LaconicError",
    "Magnitude",
    "Pruner",
    "Snip",
    "Supermask",
    "Vocabulary",
    "data",
    "load",
    "metrics",
    "store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'laconic' has no attribute {name!r}")
    home = import_module(_HOME[name])
    return home if home.__name__ == f"laconic.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
