"""Whole files are read into bounded memory, whatever they say of themselves."""

from pathlib import Path

import pytest

from laconic.machine import reading
from laconic.machine.reading import read_file, read_json


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"12345"):
        path.write_bytes(content)
        assert read_file(path, 5) == content
    with pytest.raises(ValueError, match="has 5 bytes; at most 4 are read"):
        read_file(path, 4)
    with pytest.raises(ValueError, match="has 1,001 bytes"):  # a device has no size, and no end
        read_file(Path("/dev/zero"), 1000)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "gone", 4)


def test_json_is_read_up_to_a_number_of_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2]}')
    assert read_json(path) == {"a": [1, 2]}
    monkeypatch.setattr(reading, "MAX_JSON_VALUES", 2)
    with pytest.raises(ValueError, match="holds 3 values; at most 2"):
        read_json(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=r"^is not JSON"):
        read_json(tmp_path / "x")
