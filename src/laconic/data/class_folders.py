"""Photos sorted into folders by class, as ImageNet is laid out: `root/<split>/<class>/<photo>`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from laconic.data.examples import Dataset, Example
from laconic.data.folder import list_images
from laconic.errors import DataError, printable


@dataclass(frozen=True)
class Classified:
    """Images of known classes.

    Attributes:
        labels: of each image, an index of `classes`.
        classes: names of their folders, sorted.
    """

    images: Dataset
    labels: Sequence[int]
    classes: Sequence[str]


def load_class_folders(root: Path, split: str) -> Classified:
    """The photos of one split, class by class in the order of their names. Reading opens no image.

    Raises DataError where there is no such split, fewer than two classes, or a class without a photo.
    """
    place = root / split
    if not place.is_dir():
        raise DataError(f"{printable(place)}: no such folder; give the root that holds the folders train and val")
    classes = sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise DataError(f"{printable(place)}: holds {len(classes)} folders of classes; at least two are needed")
    images: list[Example] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found, _ = list_images(place / name)
        images += found
        labels += [label] * len(found)
    return Classified(tuple(images), tuple(labels), tuple(classes))
