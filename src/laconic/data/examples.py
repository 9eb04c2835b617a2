"""One example of a data set, and reading the pixels of many without stopping at a bad one.

A data set is any sized, indexable collection of Example; a list will do. Knows nothing of where
examples come from.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from laconic.data.images import Pixels, read_image, resize
from laconic.errors import DataError, printable


class Drawable(Protocol):
    """A picture that is computed when it is needed, such as a generated scene."""

    def draw(self) -> Pixels: ...

    @property
    def identity(self) -> str:
        """Equal for equal pixels, and told without drawing; a picture that would come out differently has another."""


@dataclass(frozen=True, eq=False)
class Example:
    """An image with what is known about it.

    id        unique within its data set; results and references are keyed by it
    image     a file, pixels (uint8, height x width x 3, RGB), or something that draws them
    captions  reference captions, none for photos that only want captioning
    boxes     float32 of shape (objects, 4): x1, y1, x2, y2 relative to the image (0..1), if known
    """

    id: int | str
    image: Path | Pixels | Drawable
    captions: tuple[str, ...] = ()
    boxes: NDArray[np.float32] | None = None

    @property
    def name(self) -> str:
        """What to call the example in a message: its file, else its id; as `printable`."""
        return printable(self.image if isinstance(self.image, Path) else self.id)

    def pixels(self, min_side: int | None = None) -> Pixels:
        """The image as uint8 RGB of shape (height, width, 3).

        `min_side` and DataError as in read_image.
        """
        if isinstance(self.image, Path):
            return read_image(self.image, min_side)
        return self.image if isinstance(self.image, np.ndarray) else self.image.draw()


class Dataset(Protocol):
    """A sized, indexable collection of examples; safe to index from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True)
class Skipped:
    """An example that was left out: its name and why, for the list at the end of a run; `passing` where the cause may
    be gone at the next try, so that nothing should remember it."""

    name: str
    reason: str
    passing: bool = False


def readable(
    examples: Dataset,
    size: int,
    skipped: list[Skipped],
    indices: Iterable[int] | None = None,
    threads: int = 2,
) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, pixels of shape (size, size, 3)) in order; list the unreadable in `skipped`.

    `indices` picks and orders the examples (all of them by default). Decoding runs ahead in
    `threads` threads, by at most four images each, so memory stays bounded however slow the
    consumer is.
    """

    def pixels(index: int) -> Pixels | Skipped:
        example = examples[index]
        try:
            return resize(example.pixels(min_side=size), size)
        except DataError as error:
            return Skipped(example.name, str(error))
        except MemoryError:
            reason = f"{example.name}: too little memory is free to read it; close other programs"
            return Skipped(example.name, reason, passing=True)

    remaining = iter(range(len(examples)) if indices is None else indices)
    ahead: deque[tuple[int, Future[Pixels | Skipped]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        while True:
            while len(ahead) < 4 * threads and (index := next(remaining, None)) is not None:
                ahead.append((index, pool.submit(pixels, index)))
            if not ahead:
                return
            index, future = ahead.popleft()
            result = future.result()
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                yield index, result
    finally:  # also when the consumer stops early
        pool.shutdown(cancel_futures=True)
