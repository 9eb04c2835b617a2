"""COCO files: read back, and one clear error for whatever is not one."""

import json
from pathlib import Path

import pytest

from laconic.errors import DataError
from laconic.metrics import captions, load_references, load_results


def test_files_in_coco_format(tmp_path: Path) -> None:
    rows = [{"image_id": 7, "caption": "a dog"}, {"image_id": "x", "caption": "caf\u00e9"}]
    (tmp_path / "references.json").write_text(json.dumps({"annotations": [*rows, rows[0]]}))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    assert load_references(tmp_path / "references.json") == {7: ["a dog"] * 2, "x": ["caf\u00e9"]}
    assert load_results(str(tmp_path / "results.json")) == {7: "a dog", "x": "caf\u00e9"}


CONTENT = [
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"null",
    b"7",
    b'"text"',
    b"[1]",
    b'{"annotations": 5}',
    b'{"annotations": [{"image_id": 1}]}',
    b'[{"image_id": 1, "caption": null}]',
    b"[" * 200_000,
]


@pytest.mark.parametrize("load", [load_references, load_results])
@pytest.mark.parametrize("content", CONTENT, ids=range(len(CONTENT)))
def test_other_content_is_one_error_that_names_the_file(tmp_path: Path, load: object, content: bytes) -> None:
    path = tmp_path / "captions.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"captions\.json: ") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_results(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_results(tmp_path)
    monkeypatch.setattr(captions, "MAX_FILE", 3)
    (tmp_path / "big.json").write_text("[   ]")
    with pytest.raises(DataError, match="5 bytes"):
        load_results(tmp_path / "big.json")
