"""What is captioned: photos or region features from files, or random numbers of the same shape."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from laconic.data.images import read_image, resize
from laconic.data.regions import NO_BOXES, Regions, boxes_beside, read_regions
from laconic.errors import DataError
from laconic.runtime.inputs import Inputs
from laconic.spec.model import REGIONS
from laconic.spec.packed import CaptionerSpec

POSITIONS = 36  # regions of a random image, as many as published features of COCO have


def from_files(spec: CaptionerSpec, paths: Sequence[Path]) -> Inputs:
    """Photos, or files of one image's regions each. DataError for one that cannot be read."""
    encoder = spec.model.encoder
    if encoder.name != REGIONS:
        return Inputs(pixels=np.stack([resize(read_image(path, encoder.size), encoder.size) for path in paths]))
    located = spec.captioner.reads_boxes
    found = [read_regions(path, encoder.channels, boxes_beside(path) if located else None) for path in paths]
    for path, regions in zip(paths, found, strict=True):
        if located and regions.boxes is None:
            raise DataError(f"{path}: has no boxes, and this captioner reads where regions lie; {NO_BOXES}")
    return stacked(found if located else [Regions(one.features) for one in found])


def stacked(regions: Sequence[Regions]) -> Inputs:
    """Regions of several images; boxes where all have them."""
    boxes = [one.boxes for one in regions if one.boxes is not None]
    return Inputs(
        features=np.concatenate([one.features for one in regions]).astype(np.float32),
        positions=np.array([len(one.features) for one in regions], np.uint32),
        boxes=np.concatenate(boxes).astype(np.float32) if len(boxes) == len(regions) else None,
    )


def random_inputs(spec: CaptionerSpec, images: int, seed: int = 0) -> Inputs:
    """Noise: uint8 pixels, or features as those of a detector, at least 0 and half of them 0."""
    rng, encoder = np.random.default_rng(seed), spec.model.encoder
    if encoder.name != REGIONS:
        return Inputs(pixels=rng.integers(0, 256, (images, encoder.size, encoder.size, 3), np.uint8))
    features = rng.standard_normal((images * POSITIONS, encoder.channels), np.float32).clip(0)
    corners = np.sort(rng.random((images * POSITIONS, 2, 2), np.float32), 1).reshape(-1, 4)
    boxes = corners if spec.captioner.reads_boxes else None
    return Inputs(None, features, np.full(images, POSITIONS, np.uint32), boxes)
