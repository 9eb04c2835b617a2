"""Photos in a folder for each class."""

from pathlib import Path

import pytest
from PIL import Image

from laconic.data.class_folders import load_class_folders
from laconic.errors import DataError


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name)


def test_labels_follow_the_sorted_names_of_folders(tmp_path: Path) -> None:
    put(tmp_path, "train/tulip/b.png", "train/rose/z.png", "train/tulip/a.png", "train/.cache/x.png")
    found = load_class_folders(tmp_path, "train")
    assert found.classes == ("rose", "tulip")
    assert list(found.labels) == [0, 1, 1]
    assert [found.images[row].name[-5:] for row in range(3)] == ["z.png", "a.png", "b.png"]


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_class_folders(tmp_path, "train")
    put(tmp_path, "train/rose/a.png")
    with pytest.raises(DataError, match="1 folders of classes; at least two"):
        load_class_folders(tmp_path, "train")
    (tmp_path / "train" / "tulip").mkdir()
    with pytest.raises(DataError, match=r"tulip: holds no image"):
        load_class_folders(tmp_path, "train")
