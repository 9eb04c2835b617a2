"""What a plan reads: the pixels of images, or the features of their regions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images, as one of the two kinds of plan reads them.

    pixels     uint8 (images, side, side, 3), RGB
    features   float32 (regions of all images one behind the other, channels); `positions` (images,) says how many of
               them are of each; `boxes` float32 (regions, 4) where they lie, where the captioner reads that
    """

    pixels: NDArray[np.uint8] | None = None
    features: NDArray[np.float32] | None = None
    positions: NDArray[np.uint32] | None = None
    boxes: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        if self.pixels is not None:
            return len(self.pixels)
        return 0 if self.positions is None else len(self.positions)

    def part(self, start: int, stop: int) -> "Inputs":
        """Some of the images."""
        if self.pixels is not None:
            return Inputs(pixels=self.pixels[start:stop])
        if self.positions is None or self.features is None:
            return self
        ends = np.concatenate([[0], np.cumsum(self.positions, dtype=np.int64)])
        regions = slice(ends[start], ends[min(stop, len(self.positions))])
        boxes = None if self.boxes is None else self.boxes[regions]
        return Inputs(None, self.features[regions], self.positions[start:stop], boxes)
