"""A folder of images, sorted, with subfolders and linked ones; what is left out is named."""

import os
from pathlib import Path

import pytest
from PIL import Image

from laconic.data.folder import list_images, load_folder
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


def test_whatever_can_be_read_is_found_and_the_rest_is_named(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 3))
    image.save(tmp_path / "1.jpg")
    image.save(tmp_path / "2.jfif", "JPEG")
    image.save(tmp_path / "x.tif")
    image.save(tmp_path / "without a suffix", "PNG")
    image.save(tmp_path / "photo.jpg_large", "JPEG")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    examples, skipped = list_images(tmp_path)
    assert [example.id for example in examples] == ["1.jpg", "2.jfif", "photo.jpg_large", "without a suffix", "x.tif"]
    assert all(example.pixels().shape == (3, 4, 3) for example in examples)
    assert [item.reason.removeprefix(f"{tmp_path}/") for item in skipped] == [
        "link.jpg: cannot be opened: No such file or directory",
        "notes.txt: not an image of a kind that is read",
        "pipe.jpg: not a regular file",
    ]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("root/own/1.jpg", "elsewhere/2.jpg", "elsewhere/deep/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "again").symlink_to("own")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    examples, skipped = list_images(tmp_path / "root")
    assert [example.id for example in examples] == ["linked/2.jpg", "linked/deep/3.jpg", "own/1.jpg"]
    assert [Path(item.name).name for item in skipped] == ["again", "back"]
    assert "listed already" in skipped[0].reason


def test_names_that_are_not_utf8_can_be_printed(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.png"))
    (example,) = load_folder(tmp_path)
    assert example.id == "caf\\xe9\\n.png"
    assert example.name == f"{tmp_path}/caf\\xe9\\n.png"
    assert example.pixels().shape == (3, 4, 3)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image .*\)$"):
        load_folder(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"holds no image .*1 files are none, the first: .*notes\.txt"):
        load_folder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_folder(tmp_path / "gone")
    with pytest.raises(DataError, match="no such folder"):
        load_folder(tmp_path / "x\0y")
