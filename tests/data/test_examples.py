"""One way to pixels whatever the image is; one bad image never ends a run."""

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from laconic.data import Example, Scenes, Skipped, readable, resize


def test_pixels_of_files_arrays_and_scenes(tmp_path: Path) -> None:
    pixels = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(Example(1, tmp_path / "a.png").pixels(), pixels)
    np.testing.assert_array_equal(Example(1, pixels).pixels(), pixels)
    assert Scenes(1)[0].pixels().shape == (96, 96, 3)


def many(folder: Path, count: int, bad: set[int]) -> list[Example]:
    examples = []
    for index in range(count):
        path = folder / f"{index:03d}.png"
        if index in bad:
            path.write_bytes(b"nothing")
        else:
            Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
        examples.append(Example(index, path))
    return examples


def test_readable_goes_on_in_order_and_lists_the_bad(tmp_path: Path) -> None:
    examples = many(tmp_path, 40, bad={0, 17, 39})
    skipped: list[Skipped] = []
    got = list(readable(examples, 4, skipped))
    assert [index for index, _ in got] == [i for i in range(40) if i not in (0, 17, 39)]
    for index, pixels in got:
        np.testing.assert_array_equal(pixels, resize(examples[index].pixels(), 4))
    assert [Path(item.name).name for item in skipped] == ["000.png", "017.png", "039.png"]
    assert "not a JPEG" in skipped[0].reason


def test_readable_takes_indices(tmp_path: Path) -> None:
    examples = many(tmp_path, 6, bad={2})
    skipped: list[Skipped] = []
    assert [i for i, _ in readable(examples, 4, skipped, indices=[5, 2, 1])] == [5, 1]
    assert len(skipped) == 1


class Counting:
    """A data set of `count` images that notes which have been asked for, and by which thread."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: set[int] = set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        self.asked.add(index)
        return Example(index, np.zeros((4, 4, 3), np.uint8))


def test_readable_is_bounded_and_stops_when_the_consumer_does() -> None:
    examples = Counting(10_000)
    stream = readable(examples, 4, [], threads=2)
    assert [index for index, _ in islice(stream, 5)] == [0, 1, 2, 3, 4]
    stream.close()  # type: ignore[attr-defined]
    assert len(examples.asked) <= 5 + 8
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_a_bug_is_not_skipped() -> None:
    class Broken(Counting):
        def __getitem__(self, index: int) -> Example:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(readable(Broken(3), 4, []))
