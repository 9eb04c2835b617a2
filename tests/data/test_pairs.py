"""The reader of NLVR2: samples in the published layout, and files made to break it."""

import json
from pathlib import Path
from typing import Any

import pytest

from laconic.data.pairs import load_nlvr2
from laconic.errors import ConfigError, DataError


def line(identifier: Any, sentence: Any = "There are two dogs.", label: Any = "True", **more: Any) -> dict[str, Any]:
    return {"identifier": identifier, "sentence": sentence, "label": label} | more


def write(root: Path, file: str, rows: list[Any], photos: tuple[str, ...] = ()) -> None:
    (root / file).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    for photo in photos:
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).touch()


def test_sentences_about_the_same_photos_share_them(tmp_path: Path) -> None:
    rows = [line("dev-4-1-0"), line("dev-4-1-1", "No dog.", "False"), line("dev-5-0-0")]
    write(tmp_path, "dev.json", rows, tuple(f"dev/dev-{n}-img{side}.png" for n in ("4-1", "5-0") for side in (0, 1)))
    found = load_nlvr2(tmp_path, "val")
    assert [(pair.id, pair.left, pair.right, pair.label) for pair in found.items] == [
        ("dev-4-1-0", 0, 1, 1),
        ("dev-4-1-1", 0, 1, 0),
        ("dev-5-0-0", 2, 3, 1),
    ]
    assert found.items[1].sentence == "No dog."
    assert [example.image for example in found.images][2:] == [tmp_path / f"dev/dev-5-0-img{n}.png" for n in (0, 1)]
    first = found.first(1)
    assert (len(first.images), first.items) == (2, found.items[:2])


def test_photos_of_training_lie_in_their_directory(tmp_path: Path) -> None:
    photos = tuple(f"images/train/37/train-0-0-img{side}.png" for side in (0, 1))
    write(tmp_path, "train.json", [line("train-0-0-0", directory=37)], photos)
    assert [example.image for example in load_nlvr2(tmp_path, "train").images] == [tmp_path / name for name in photos]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 1 is no JSON"),
        ("[" * 100_000, "line 1 is no JSON"),
        ("3", "line 1 is no table"),
        (line(3), "identifier must be a text"),
        (line("dev"), "identifier must be a text"),
        (line("../../etc-0"), "leads out of the root"),
        (line("x/y-0"), "must be the name of a file"),
        (line("dev-1-0-0", directory="../.."), "leads out of the root"),
        (line("dev-1-0-0", ""), "sentence is no text"),
        (line("dev-1-0-0", None), "sentence is no text"),
        (line("dev-1-0-0", "\ud800"), "half a character"),
        (line("dev-1-0-0", label="maybe"), "label must be 'True' or 'False', not 'maybe'"),
        (line("dev-1-0-0", label=1), "label must be"),
        (line("dev-1-0-0"), "2 of 2 images are missing"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path: Path, row: Any, says: str) -> None:
    write(tmp_path, "dev.json", [row])
    with pytest.raises(DataError, match=says):
        load_nlvr2(tmp_path, "val")


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.json: No such file"):
        load_nlvr2(tmp_path, "train")
    write(tmp_path, "test1.json", [""])
    with pytest.raises(DataError, match="is empty"):
        load_nlvr2(tmp_path, "test")
    with pytest.raises(ConfigError, match="no split 'dev'"):
        load_nlvr2(tmp_path, "dev")
