"""From the bytes of an image to the numbers that an encoder reads.

Sizes and normalisation are data, so that an engine without torch does the same as a model with it. Knows nothing of
image files.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from laconic.errors import ConfigError

LEAST_SIDE = 32
# One image of this side takes no more memory in an encoder than the 32 of side 224 that are encoded at once.
MOST_SIDE = 1024
USUAL_SIDE = 224

Channels = tuple[float, ...]


@dataclass(frozen=True)
class Normalization:
    """How bytes 0 to 255 become an encoder's numbers: byte / scale - mean / scale, for each of red, green and blue.

    The default maps to -1..1 as TensorFlow-slim does. Computed in float32 in this order: division, then subtraction.
    Raises ConfigError for anything but three finite numbers each, scales above 0.
    """

    mean: Channels = (127.5, 127.5, 127.5)
    scale: Channels = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise ConfigError(f"pixels: {name} = {list(values)}; give three numbers, of red, green and blue")
        if min(self.scale) <= 0:
            raise ConfigError(f"pixels: scale = {list(self.scale)}; give numbers above 0")

    @property
    def shift(self) -> Channels:
        """What is subtracted from byte / scale."""
        return tuple(mean / scale for mean, scale in zip(self.mean, self.scale, strict=True))

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (..., height, width, 3) to float32 (..., 3, height, width)."""
        planes = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
        planes /= np.array(self.scale, np.float32)[:, None, None]
        planes -= np.array(self.shift, np.float32)[:, None, None]
        return planes


def images_at_once(size: int, most: int) -> int:
    """How many images of `size` x `size` pixels to encode at once: `most` of them up to USUAL_SIDE, and of larger ones
    as many as take the same memory, but at least one."""
    return max(1, most * USUAL_SIDE**2 // max(size, USUAL_SIDE) ** 2)
