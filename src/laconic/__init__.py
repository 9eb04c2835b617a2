"""Laconic: make image captioners small and fast.

Names are loaded when they are first used, so that scoring captions or reading a file does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic import data, metrics, store
    from laconic.captioner.image_captioner import ImageCaptioner
    from laconic.captioner.loading import load
    from laconic.compress.masked.fisher import Fisher
    from laconic.compress.masked.frozen import Frozen
    from laconic.compress.masked.magnitude import Gradual, Magnitude
    from laconic.compress.masked.pruner import Pruner
    from laconic.compress.masked.schedule import Cubic
    from laconic.compress.masked.snip import Snip
    from laconic.compress.masked.supermask import Supermask
    from laconic.decode.search import Decoding
    from laconic.errors import LaconicError
    from laconic.text import Vocabulary

__version__ = "0.1.0"

_HOME = {  # public name -> module that defines it; a module is its own home
    "Cubic": "laconic.compress.masked.schedule",
    "Decoding": "laconic.decode.search",
    "Fisher": "laconic.compress.masked.fisher",
    "Frozen": "laconic.compress.masked.frozen",
    "Gradual": "laconic.compress.masked.magnitude",
    "ImageCaptioner": "laconic.captioner.image_captioner",
    "LaconicError": "laconic.errors",
    "Magnitude": "laconic.compress.masked.magnitude",
    "Pruner": "laconic.compress.masked.pruner",
    "Snip": "laconic.compress.masked.snip",
    "Supermask": "laconic.compress.masked.supermask",
    "Vocabulary": "laconic.text",
    "data": "laconic.data",
    "load": "laconic.captioner.loading",
    "metrics": "laconic.metrics",
    "store": "laconic.store",
}

__all__ = [
    "Cubic",
    "Decoding",
    "Fisher",
    "Frozen",
    "Gradual",
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
    try:
        home = import_module(_HOME[name])
    except ModuleNotFoundError as error:
        from laconic.errors import not_installed

        raise not_installed(error) or error from None
    return home if home.__name__ == f"laconic.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
