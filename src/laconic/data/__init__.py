"""Data sets for captioning: images with reference captions, from files or generated.

    from laconic import data
    train = data.load("flickr8k", "path/to/flickr8k", "train")
    train[0].captions, train[0].pixels().shape

A data set is any sized, indexable collection of Example. No torch here: arrays are numpy's. Names are loaded when they
are first used, so that captioning a photo does not wait for what generates scenes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.data.captions import load_captions
    from laconic.data.datasets import DATASETS, load
    from laconic.data.examples import Dataset, Example, Skipped, readable
    from laconic.data.folder import list_images
    from laconic.data.images import Pixels, preprocess, read_image, resize
    from laconic.data.karpathy import Tokens, load_karpathy, write_karpathy
    from laconic.data.photos import Photos
    from laconic.data.references import load_references
    from laconic.data.scenes import Scene, Scenes

_HOME = {  # public name -> module of this package that defines it
    "load_captions": "captions",
    "DATASETS": "datasets",
    "load": "datasets",
    "Dataset": "examples",
    "Example": "examples",
    "Skipped": "examples",
    "readable": "examples",
    "list_images": "folder",
    "Pixels": "images",
    "preprocess": "images",
    "read_image": "images",
    "resize": "images",
    "Tokens": "karpathy",
    "load_karpathy": "karpathy",
    "write_karpathy": "karpathy",
    "Photos": "photos",
    "load_references": "references",
    "Scene": "scenes",
    "Scenes": "scenes",
}

__all__ = [
    "DATASETS",
    "Dataset",
    "Example",
    "Photos",
    "Pixels",
    "Scene",
    "Scenes",
    "Skipped",
    "Tokens",
    "list_images",
    "load",
    "load_captions",
    "load_karpathy",
    "load_references",
    "preprocess",
    "read_image",
    "readable",
    "resize",
    "write_karpathy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'laconic.data' has no attribute {name!r}")
    return getattr(import_module(f"laconic.data.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
