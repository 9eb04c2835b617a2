"""Captions in text files: the layouts of Flickr8k and Flickr30k, splits, and files made to break the reader."""

from pathlib import Path

import pytest
from PIL import Image

from laconic.data import captions, load, load_captions
from laconic.data.captions import deal, read_captions
from laconic.errors import DataError, LaconicWarning

LAYOUTS = {
    "captions.txt": 'image,caption\na.jpg,"A dog , running ."\na.jpg,A  cat\n\nb.jpg,"two ""big"" birds"\n',
    "heads.csv": "\ufeffcaption,comment_number,image\r\n"
    '"A dog , running .",0,a.jpg\r\nA  cat,1,a.jpg\r\ntwo "big" birds,0,b.jpg',
    "Flickr8k.token.txt": 'a.jpg#0\tA dog , running .\na.jpg#1\tA  cat\nb.jpg#0\ttwo "big" birds\n',
    "results.csv": "image_name| comment_number| comment\n"
    'a.jpg| 0| A dog , running .\na.jpg| 1   A  cat\nb.jpg| 0| two "big" birds\n',
}
EXPECTED = {"a.jpg": ("A dog , running .", "A cat"), "b.jpg": ('two "big" birds',)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(LAYOUTS[name].encode())
    assert read_captions(tmp_path / name) == EXPECTED


def flickr(root: Path, photos: str = "Images") -> None:
    """captions.txt and four photos as Flickr8k comes, with two of the lists."""
    (root / photos).mkdir(parents=True)
    rows = [f"{name}.jpg,a photo of {name}\n" for name in "abcd"]
    (root / "captions.txt").write_text("image,caption\n" + "".join(rows))
    for name in "abcd":
        Image.new("RGB", (5, 4)).save(root / photos / f"{name}.jpg")
    (root / "Flickr_8k.trainImages.txt").write_text("b.jpg\na.jpg\n")
    (root / "Flickr_8k.devImages.txt").write_text("d.jpg\n")


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k", "captions"])
def test_splits_of_the_lists_beside_the_file(tmp_path: Path, name: str) -> None:
    flickr(tmp_path)
    train, val = load(name, tmp_path, "train"), load(name, tmp_path, "val")
    assert [train[i].id for i in range(len(train))] == ["a.jpg", "b.jpg"]
    assert [val[i].captions for i in range(len(val))] == [("a photo of d",)]
    assert val[0].pixels().shape == (4, 5, 3)
    with pytest.raises(DataError, match=r"no images in split 'test'; it has train \(2\), unused \(1\), val \(1\)"):
        load(name, tmp_path, "test")


def test_a_json_file_comes_first_and_a_text_file_can_be_named(tmp_path: Path) -> None:
    flickr(tmp_path)
    (tmp_path / "dataset_flickr8k.json").write_text("{}")
    with pytest.raises(DataError, match="no list 'images'"):
        load("flickr8k", tmp_path, "train")
    assert len(load("flickr8k", tmp_path, "train", annotations=tmp_path / "captions.txt")) == 2


def test_photos_that_are_missing(tmp_path: Path) -> None:
    flickr(tmp_path)
    (tmp_path / "Images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images are missing \(a\.jpg\)"):
        load_captions(tmp_path, "train")
    assert len(load_captions(tmp_path, "train", photos="some")) == 2
    with pytest.raises(DataError, match=r"no captions\.txt, .* in it"):
        load_captions(tmp_path / "Images", "train")


def test_splits_without_lists_are_the_same_everywhere() -> None:
    names = [f"{number}.jpg" for number in range(40)]
    splits = deal(names)
    assert splits == deal(reversed(names))
    assert [list(splits.values()).count(split) for split in ("train", "val", "test")] == [32, 4, 4]
    assert [name for name in names if splits[name] == "val"] == ["26.jpg", "34.jpg", "36.jpg", "38.jpg"]
    assert sorted(deal("abc").values()) == ["test", "train", "val"]


def test_making_splits_is_said(tmp_path: Path) -> None:
    flickr(tmp_path)
    for name in ("trainImages", "devImages"):
        (tmp_path / f"Flickr_8k.{name}.txt").unlink()
    with pytest.warns(LaconicWarning, match="no lists of splits beside it .*a tenth of the images becomes val"):
        assert len(load_captions(tmp_path, "train")) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "its first line is neither"),
        (b"image,caption\n", "no captions in it"),
        (b"a dog\na cat\n", r"its first line is neither of a known layout; give lines such as image,caption"),
        (b"image,caption\na.jpg,x,y\n", "line 2: 3 fields instead of 2"),
        (b'image,caption\na.jpg,"' + b"x" * 200_000, "line 2: field larger"),
        (b"a.jpg#0\tx\nb.jpg#0 y\n", "line 2: no tab"),
        (b"image_name| comment_number| comment\na.jpg\n", "line 2: not image"),
        (b"\xff\xfei\0m\0", "not UTF-8 text"),
        (b"image,caption\n../a.jpg,x\n", "leads out of the root; do not trust"),
        (b"image,caption\na\0.jpg,x\n", "leads out of the root"),
        (b"image,caption\nsub/a.jpg,x\n", "must be the name of a file"),
        (b"image,caption\n,x\n", "must be the name of a file"),
    ],
)
@pytest.mark.filterwarnings("ignore::laconic.errors.LaconicWarning")
def test_other_files_are_refused_by_name_and_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "captions.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"captions\.txt: .*{says}"):
        load_captions(tmp_path, "val", photos="none")


def test_lists_that_contradict_each_other(tmp_path: Path) -> None:
    flickr(tmp_path)
    (tmp_path / "Flickr_8k.devImages.txt").write_text("a.jpg\n")
    with pytest.raises(DataError, match=r"devImages\.txt: 'a\.jpg' is in split 'train', too"):
        load_captions(tmp_path, "train")
    for name in ("trainImages", "devImages"):
        (tmp_path / f"Flickr_8k.{name}.txt").write_text("x.jpg\n" if name == "trainImages" else "")
    with pytest.raises(DataError, match="none of its images is in the lists"):
        load_captions(tmp_path, "train")


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flickr(tmp_path)
    monkeypatch.setattr(captions, "MAX_BYTES", 20)
    with pytest.raises(DataError, match=r"captions\.txt: has \d+ bytes; at most 20 are read"):
        load_captions(tmp_path, "train")
