"""A folder of images, sorted and with subfolders."""

from pathlib import Path

import pytest

from laconic.data.folder import load_folder
from laconic.errors import DataError


def test_folder_is_sorted_and_recursive(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/2.png", "a/1.webp", "notes.txt", ".hidden.png", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    examples = load_folder(tmp_path)
    assert [example.id for example in examples] == ["a/1.webp", "a/2.png", "b.JPG"]
    assert examples[0].image == tmp_path / "a" / "1.webp"
    assert examples[0].captions == ()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        load_folder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_folder(tmp_path / "gone")
