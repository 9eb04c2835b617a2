"""Reference captions come from any file of captions; what is none is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from laconic.data import Scenes, load_references, write_karpathy
from laconic.errors import DataError, LaconicWarning


def test_coco(tmp_path: Path) -> None:
    rows = [{"image_id": 7, "caption": "a dog"}, {"image_id": 7, "caption": "a cat"}]
    (tmp_path / "refs.json").write_text(json.dumps({"images": [{"id": 7}], "annotations": rows}))
    assert load_references(tmp_path / "refs.json") == {7: ["a dog", "a cat"]}
    with pytest.raises(DataError, match=r"refs\.json: has no splits; leave the split 'val' out"):
        load_references(tmp_path / "refs.json", "val")


def test_karpathy(tmp_path: Path) -> None:
    val = Scenes(2, split="val")
    path = write_karpathy(tmp_path, "x", {"train": Scenes(3), "val": val})
    assert load_references(path, "val") == {3 + i: list(val[i].captions) for i in range(2)}
    assert list(load_references(path)) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"no images in split 'dev'; it has train \(3\), val \(2\)"):
        load_references(path, "dev")


def test_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a.jpg#0\ta dog\nb.jpg#0\t\nc.jpg#0\ta cat\n")
    assert load_references(tmp_path / "x.txt") == {"a.jpg": ["a dog"], "c.jpg": ["a cat"]}
    with pytest.warns(LaconicWarning, match="no lists of splits"):
        assert len(load_references(tmp_path / "x.txt", "val")) <= 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "expected"),
        ("{", "is not JSON"),
        ({"images": [{"split": "val"}]}, r"images\[0\].imgid must be an integer, not missing"),
        ({"images": [{"imgid": 1, "sentences": []}] * 2}, "id 1 belongs to 2 images"),
        ({"annotations": [7]}, r"annotations\[0\] must be an object"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    (tmp_path / "x.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=rf"x\.json: .*{says}"):
        load_references(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
        load_references(tmp_path / "gone.json")


def test_tokens_may_be_asked_for(tmp_path: Path) -> None:
    sentence = {"raw": "A dog.", "tokens": ["a", "dog"]}
    (tmp_path / "x.json").write_text(json.dumps({"images": [{"imgid": 1, "split": "val", "sentences": [sentence]}]}))
    assert load_references(tmp_path / "x.json") == {1: ["A dog."]}
    assert load_references(tmp_path / "x.json", tokens="always") == {1: ["a dog"]}
    (tmp_path / "x.txt").write_text("a.jpg#0\ta dog\n")
    with pytest.raises(DataError, match=r"x\.txt: holds sentences without tokens"):
        load_references(tmp_path / "x.txt", tokens="always")
