"""Files of captions: JSON lines, CSV, COCO's results."""

import csv
import json
from pathlib import Path

import pytest

from laconic import metrics
from laconic.bulk.listing import Record
from laconic.bulk.merge import Captioned, coco_id, format_of, with_coco_ids, write_captions
from laconic.cli.paths import _captions_of_folder
from laconic.errors import ConfigError

NAMES = ['quo"te.jpg', "a,b.jpg", "two\nlines.jpg", "caf\udce9.jpg", "日本.jpg", " .jpg"]
ROWS = [
    *(Captioned(name, f'a "dog", {n}') for n, name in enumerate(NAMES)),
    Captioned("x\udce9.jpg", None, "cut\nhere"),
]


def written(tmp_path: Path, suffix: str, rows: list[Captioned]) -> Path:
    out = tmp_path / f"out{suffix}"
    captions = sum(row.caption is not None for row in rows)
    found = write_captions(rows, out, tmp_path / "skipped.csv")
    assert found == {"captions": captions, "skipped": len(rows) - captions}
    assert _captions_of_folder(out) or not out.stat().st_size
    return out


def test_json_lines_keep_all_names(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in written(tmp_path, ".jsonl", ROWS).read_text("utf8").split("\n")[:-1]]
    assert rows == [{"image": row.name, "caption": row.caption} for row in ROWS[:-1]]


def test_csv_is_quoted_and_utf8(tmp_path: Path) -> None:
    with open(written(tmp_path, ".csv", ROWS), encoding="utf8", newline="") as file:
        rows = list(csv.reader(file))
    names = [name.replace("\udce9", "\\udce9") for name in NAMES]
    assert rows == [["image", "caption"], *([name, f'a "dog", {n}'] for n, name in enumerate(names))]
    with open(tmp_path / "skipped.csv", encoding="utf8", newline="") as file:
        assert list(csv.reader(file)) == [["image", "reason"], ["x\\udce9.jpg", "cut\nhere"]]


def test_coco_results_are_what_coco_reads(tmp_path: Path) -> None:
    rows = [Captioned("val/COCO_val2014_000000391895.jpg", "a man"), Captioned("12.png", "a dog")]
    out = written(tmp_path, ".json", rows)
    assert json.loads(out.read_text()) == [
        {"image_id": 391895, "caption": "a man"},
        {"image_id": 12, "caption": "a dog"},
    ]
    assert metrics.load_results(out) == {391895: "a man", 12: "a dog"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_no_caption_at_all(tmp_path: Path, suffix: str) -> None:
    out = written(tmp_path, suffix, ROWS[-1:])
    assert {".jsonl": "", ".csv": "image,caption\n", ".json": "[\n]\n"}[suffix] == out.read_text()


def test_other_files_are_none_of_these(tmp_path: Path) -> None:
    for text in ('[{"image": "a", "caption": "b"}]', "image;caption\n", '{"image_id": 3}'):
        (tmp_path / "file").write_text(text)
        assert not _captions_of_folder(tmp_path / "file")


def test_the_suffix_tells_the_format() -> None:
    assert format_of(Path("OUT.JSONL")) is format_of(Path("out.jsonl"))
    with pytest.raises(ConfigError, match=r"\.jsonl, \.csv, \.json"):
        format_of(Path("captions.txt"))


@pytest.mark.parametrize(
    ("name", "number"),
    [("391895.jpg", 391895), ("a.tar/000000000009.jpg", 9), ("COCO_train2014_000000000009.jpg", 9), ("0.png", 0)],
)
def test_coco_ids(name: str, number: int) -> None:
    assert coco_id(name) == number


@pytest.mark.parametrize("name", ["dog.jpg", "img_12.jpg", "12a.jpg", "-1.jpg", "٣.jpg", "9" * 30 + ".jpg", "1.5.jpg"])
def test_no_coco_id(name: str) -> None:
    with pytest.raises(ConfigError, match=r"write \.jsonl or \.csv"):
        coco_id(name)


def test_two_images_of_one_coco_id() -> None:
    found = with_coco_ids([Record("a/1.jpg"), Record("2.jpg"), Record("1.png")])
    with pytest.raises(ConfigError, match="1 images have the COCO id of another, such as 1;"):
        list(found)


def test_a_file_without_an_images_name_has_no_coco_id() -> None:
    note, folder = with_coco_ids([Record("1"), Record("b", problem="cannot be opened")])
    assert "no COCO id" in note.problem
    assert folder.problem == "cannot be opened"
