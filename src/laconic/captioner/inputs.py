"""Images as a captioner takes them: a photo's path, pixels, region features; read and checked. Needs no torch.

Used alike by the engine and by the PyTorch captioner, so that both see the same numbers.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laconic.data.images import read_image, resize
from laconic.data.regions import NO_BOXES, Regions, batches, boxes_beside, read_regions
from laconic.errors import ConfigError, DataError
from laconic.spec.model import REGIONS
from laconic.spec.packed import CaptionerSpec

Image = NDArray[np.uint8] | Regions | str | PathLike[str]


def reads_regions(spec: CaptionerSpec) -> bool:
    """Whether it begins where a detector ended."""
    return spec.model.encoder.name == REGIONS


def region_channels(spec: CaptionerSpec) -> int:
    """Of the region features that it reads; 0 where it reads photos."""
    return spec.model.encoder.channels if reads_regions(spec) else 0


def needs_boxes(spec: CaptionerSpec) -> bool:
    """Whether it has to be told where regions lie; the cells of a photo's grid lie where they lie."""
    return reads_regions(spec) and spec.captioner.reads_boxes


def groups_of(spec: CaptionerSpec, images: Iterable[Image], count: int) -> Iterator[list[Image]]:
    """So many images at once, and fewer where their regions are many. ConfigError for one path in place of a list."""
    if isinstance(images, str | PathLike):
        raise ConfigError(f"give a list of images, [{os.fspath(images)!r}]")
    if reads_regions(spec):
        for group in batches(((None, regions_of(spec, image)) for image in images), count):
            yield [regions for _, regions in group]
        return
    remaining = iter(images)
    while some := list(islice(remaining, count)):
        yield some


def stack_pixels(spec: CaptionerSpec, images: Sequence[Image]) -> NDArray[np.uint8]:
    """uint8 (images, size, size, 3); DataError for a file that cannot be read."""
    return np.stack([pixels_of(spec, image) for image in images])


def pixels_of(spec: CaptionerSpec, image: Image) -> NDArray[np.uint8]:
    """As it is encoded, (size, size, 3); no more than one image is in memory at its own size."""
    size = spec.model.encoder.size
    if isinstance(image, str | PathLike):
        return resize(read_image(image, size), size)
    if isinstance(image, Regions):
        raise ConfigError("this captioner reads photos; give it nothing else")
    return resize(_checked(image), size)


def regions_of(spec: CaptionerSpec, image: Image) -> Regions:
    """As they are read: without boxes where the captioner has no use for them.

    Raises DataError where it needs boxes and there are none.
    """
    boxes_wanted = needs_boxes(spec)
    if isinstance(image, str | PathLike):
        boxes = boxes_beside(Path(image)) if boxes_wanted else None
        image = read_regions(image, spec.model.encoder.channels, boxes)
    if not isinstance(image, Regions):
        raise ConfigError("this captioner reads region features; give it nothing else")
    if boxes_wanted and image.boxes is None:
        raise DataError(f"{spec.model.decoder.name} reads where regions lie: {NO_BOXES}")
    return image if boxes_wanted else Regions(image.features)


def _checked(image: object) -> NDArray[np.uint8]:
    """The image where it is pixels as `read_image` gives them, else ConfigError."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    given = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ConfigError(f"an image is {given}; give its path, or uint8 (height, width, 3)")
