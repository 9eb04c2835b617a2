"""A captioner that says what colour a picture has, as slowly as it is told; as a program, a worker on a folder.

python stub.py FOLDER OUT DELAY SHARD
"""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from laconic.bulk.job import Request
from laconic.bulk.worker import caption_folder
from laconic.decode.search import Decoding

SIZE = 16


class Stub:
    """Each picture takes up to `delay` seconds. `done` counts them."""

    def __init__(self, delay: float = 0.0) -> None:
        self.side = SIZE
        self.delay = delay
        self.done = 0

    def caption(self, images: Sequence[np.ndarray], decoding: Decoding, batch: int) -> list[str]:
        assert all(image.shape == (SIZE, SIZE, 3) for image in images)
        assert len(images) <= batch
        self.done += len(images)
        shades = [image.mean(axis=(0, 1)).round(1).tolist() for image in images]
        time.sleep(sum(self.delay * (red % 10) / 10 for red, _, _ in shades))
        return [f"a picture, {red} red and {green} green" for red, green, _ in shades]


def draw(folder: Path, count: int) -> None:
    """Small pictures, no two alike, in a few folders."""
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
        place = folder / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")


def request(folder: Path, out: Path, shard: int | None = 5, captioner: str = "stub") -> Request:
    return Request(folder, out, {"captioner": captioner, "beam": 3}, shard=shard)


if __name__ == "__main__":
    folder, out, delay, shard = sys.argv[1:]
    asked = request(Path(folder), Path(out), int(shard))
    caption_folder(asked, Decoding(), partial(Stub, float(delay)), lambda done, of: print(done, flush=True))
