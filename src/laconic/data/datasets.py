"""The table of data sets by name, and `load`.

A loader is called as loader(root: Path | None, split: str, **options) and gives a Dataset.
"""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, get_args

from laconic.data.captions import SUFFIXES, captions_file, load_captions
from laconic.data.examples import Dataset
from laconic.data.folder import load_folder
from laconic.data.karpathy import Tokens, load_karpathy
from laconic.data.photos import Photos
from laconic.data.scenes import load_scenes
from laconic.errors import ConfigError, printable


def load(
    name: str, /, root: str | Path | None = None, split: str = "train", *, photos: Photos = "all", **options: Any
) -> Dataset:
    """Load one split of a data set of DATASETS.

    `root` is the folder of the data (not used by the generated scenes); `photos` tells which image files must be
    there, see load_karpathy (others have none that they could miss); `options` are further keyword arguments of the
    loader: load_scenes, load_karpathy, load_captions or load_folder. Raises ConfigError for an unknown name or option
    or a root that is needed, DataError for data that cannot be used.
    """
    if name not in DATASETS:
        raise ConfigError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    loader = DATASETS[name]
    fixed = ("root", "split", "name", "photos")
    parameters = inspect.signature(loader).parameters
    known = [key for key in parameters if key not in fixed]
    if photos not in get_args(Photos):
        raise ConfigError(f"photos = {photos!r}; give one of {', '.join(get_args(Photos))}")
    for key in options:
        if key not in known:
            raise ConfigError(f"data set {name!r} has no option {key!r}; it has {', '.join(known) or 'none'}")
    if "photos" in parameters:
        options["photos"] = photos
    return loader(None if root is None else Path(root), split, **options)


def _on_disk(name: str, loader: Callable[..., Dataset]) -> Callable[..., Dataset]:
    @wraps(loader)
    def load_from(root: Path | None, split: str, **options: Any) -> Dataset:
        if root is None:
            raise ConfigError(f"data set {name!r} lies on disk; give its folder as root")
        return loader(root, split, **options)

    return load_from


def _annotated(
    root: Path,
    split: str,
    name: str,
    annotations: Path | None = None,
    restval: bool = True,
    photos: Photos = "all",
    tokens: Tokens = "auto",
) -> Dataset:
    """load_karpathy where there is such a file, else load_captions: `restval` and `tokens` are for the former.

    Raises ConfigError where text files are to give tokens, which they do not hold.
    """
    if annotations is None and not (root / f"dataset_{name}.json").is_file():
        annotations = captions_file(root)
    if annotations is not None and annotations.suffix.lower() in SUFFIXES:
        if tokens == "always":
            raise ConfigError(
                f'{printable(annotations)}: holds sentences without tokens of their own; leave tokens = "always" out'
            )
        return load_captions(root, split, annotations, photos)
    return load_karpathy(root, split, name, annotations, restval, photos, tokens)


def _published(name: str) -> Callable[..., Dataset]:
    return _on_disk(name, partial(_annotated, name=name))


DATASETS: dict[str, Callable[..., Dataset]] = {
    "scenes": load_scenes,
    "flickr8k": _published("flickr8k"),
    "flickr30k": _published("flickr30k"),
    "coco": _published("coco"),
    "captions": _on_disk("captions", load_captions),
    "folder": _on_disk("folder", load_folder),
}
"""Name -> loader, called as loader(root: Path | None, split: str, **options)."""
