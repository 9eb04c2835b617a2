"""Laconic: make image captioners small and fast.

Names are loaded when they are first used, so that scoring captions or reading a file does not wait for torch.
"""

from typing import TYPE_CHECKING

from laconic.lazy import lazily

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
    from laconic.compress.quantized.aware import Quantizer
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
    "Quantizer": "laconic.compress.quantized.aware",
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
    "Quantizer",
    "Snip",
    "Supermask",
    "Vocabulary",
    "data",
    "load",
    "metrics",
    "store",
]

__getattr__, __dir__ = lazily(__name__, _HOME, "__version__")
