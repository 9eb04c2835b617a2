"""Folders are written whole or not at all."""

import pytest

from laconic.machine.folders import folder_atomically


def test_a_new_folder_takes_the_old_ones_place(tmp_path):
    folder = tmp_path / "deep" / "folder"
    for content in ("first", "second"):
        with folder_atomically(folder) as place:
            (place / content).write_text(content)
            assert not (folder / content).exists()
        assert [path.name for path in folder.iterdir()] == [content]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]


def test_what_fails_changes_nothing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("old")

    def fail() -> None:
        with folder_atomically(folder) as place:
            (place / "new").write_text("new")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in folder.iterdir()] == ["old"]
