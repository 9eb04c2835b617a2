"""Data sets for captioning: images with reference captions, from files or generated.

    from laconic import data
    train = data.load("flickr8k", "path/to/flickr8k", "train")
    train[0].captions, train[0].pixels().shape

A data set is any sized, indexable collection of Example. No torch here: arrays are numpy's. Names are loaded when they
are first used, so that captioning a photo does not wait for what generates scenes.
"""

from typing import TYPE_CHECKING

from laconic.lazy import lazily

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

_HOME = {  # public name -> module that defines it
    "load_captions": "laconic.data.captions",
    "DATASETS": "laconic.data.datasets",
    "load": "laconic.data.datasets",
    "Dataset": "laconic.data.examples",
    "Example": "laconic.data.examples",
    "Skipped": "laconic.data.examples",
    "readable": "laconic.data.examples",
    "list_images": "laconic.data.folder",
    "Pixels": "laconic.data.images",
    "preprocess": "laconic.data.images",
    "read_image": "laconic.data.images",
    "resize": "laconic.data.images",
    "Tokens": "laconic.data.karpathy",
    "load_karpathy": "laconic.data.karpathy",
    "write_karpathy": "laconic.data.karpathy",
    "Photos": "laconic.data.photos",
    "load_references": "laconic.data.references",
    "Scene": "laconic.data.scenes",
    "Scenes": "laconic.data.scenes",
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

__getattr__, __dir__ = lazily(__name__, _HOME)
