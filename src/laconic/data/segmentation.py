"""Images with the class of each pixel: the layouts of ADE20K and CamVid, and reading a mask.

    found = load_segmentation("camvid", root, "train")
    labels = found.labels(0)                # uint8 (height, width), VOID where no class is known

Folders and files are taken as hostile: a mask is refused with its name unless it is a PNG of one channel, of its
image's size, whose values the layout knows. Loading a split opens no image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from laconic.data.examples import Dataset
from laconic.data.folder import list_images
from laconic.data.formats import MAX_MEMORY, memory_of, open_image
from laconic.errors import ConfigError, DataError, printable
from laconic.metrics.segmentation import VOID

Labels = NDArray[np.uint8]
Places = tuple[tuple[str, str], ...]  # folders of images and of masks, below the root


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes:
        places: of each split; the first that is there is read.
        classes: their names, by label.
        first: value of the first class in a mask file; the others follow.
        void: value of pixels without a class.
    """

    places: Mapping[str, Places]
    classes: Sequence[str]
    first: int
    void: int


LAYOUTS: dict[str, Layout] = {
    "ade20k": Layout(
        {
            "train": (("images/training", "annotations/training"),),
            "val": (("images/validation", "annotations/validation"),),
        },
        tuple(f"class {number}" for number in range(1, 151)),
        first=1,
        void=0,
    ),
    "camvid": Layout(
        {
            split: ((f"{split}/images", f"{split}/masks"), (split, f"{split}annot"))
            for split in ("train", "val", "test")
        },
        ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"),
        first=0,
        void=11,
    ),
}


@dataclass(frozen=True)
class Segmented:
    """Images of known masks.

    Attributes:
        masks: a file for each image.
    """

    images: Dataset
    masks: Sequence[Path]
    layout: Layout

    def labels(self, row: int) -> Labels:
        """uint8 (height, width): index of `layout.classes`, or VOID. DataError for a mask that cannot be used."""
        path, layout = self.masks[row], self.layout
        values = read_mask(path)
        size = _size(self.images[row].image)
        if size is not None and values.shape != size[::-1]:
            raise DataError(
                f"{printable(path)}: {values.shape[1]} x {values.shape[0]} pixels, but its image has {size[0]} x "
                f"{size[1]}; give a mask of the image's size"
            )
        known = np.full(256, -1, np.int16)
        known[layout.first : layout.first + len(layout.classes)] = np.arange(len(layout.classes))
        known[layout.void] = VOID
        found = known[values]
        if (found < 0).any():
            raise DataError(
                f"{printable(path)}: holds the value {int(values[found < 0][0])}; classes are {layout.first} to "
                f"{layout.first + len(layout.classes) - 1}, and {layout.void} is none: correct the mask"
            )
        return found.astype(np.uint8)


def load_segmentation(name: str, root: Path, split: str) -> Segmented:
    """One split, sorted by file name.

    Raises ConfigError for an unknown layout or split, DataError where folders or masks are missing.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"no layout {name!r} of masks; choose one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    if split not in layout.places:
        raise ConfigError(f"{name}: no split {split!r}; it has {', '.join(layout.places)}")
    for images, masks in layout.places[split]:
        if (root / images).is_dir() and (root / masks).is_dir():
            return _pair(root / images, root / masks, layout)
    wanted = " or ".join(f"{images}/ and {masks}/" for images, masks in layout.places[split])
    raise DataError(f"{printable(root)}: holds no {wanted}; give the folder of {name} as it is laid out")


def _pair(images: Path, masks: Path, layout: Layout) -> Segmented:
    examples, _ = list_images(images)
    paths = [
        masks / example.image.relative_to(images).with_suffix(".png")
        for example in examples
        if isinstance(example.image, Path)
    ]
    there = {path.relative_to(masks).as_posix() for path in masks.rglob("*.png")}
    missing = [path for path in paths if path.relative_to(masks).as_posix() not in there]
    if missing:
        raise DataError(
            f"{printable(masks)}: {len(missing)} of {len(paths)} images have no mask there, the first is to be "
            f"{printable(missing[0].name)}; add the masks or take the images away"
        )
    return Segmented(examples, paths, layout)


def read_mask(path: Path) -> Labels:
    """The values of a PNG of one channel of 8 bits or of a palette, uint8 (height, width). DataError for others."""
    name = printable(path)
    try:
        with path.open("rb") as file:
            image = open_image(file)
            if not isinstance(image, PngImageFile) or image.mode not in ("L", "P"):
                raise DataError(f"no PNG of one channel of 8 bits (mode {image.mode}); a pixel's value is its class")
            if memory_of(image, image.size) > MAX_MEMORY:
                raise DataError(f"{image.width} x {image.height} pixels are too many; make it smaller")
            return np.array(image)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({printable(error)}); copy it again") from error
    except Exception as error:  # decoders of hostile bytes raise anything
        raise DataError(f"{name}: truncated or damaged ({printable(error)}); copy it again") from error


def _size(image: object) -> tuple[int, int] | None:
    """Width and height of an image file as its header tells; None of what is no file, or cannot be read."""
    if not isinstance(image, Path):
        return None
    try:
        with image.open("rb") as file:
            return open_image(file).size
    except Exception:  # an image that cannot be read is left out and named where its pixels are read
        return None
