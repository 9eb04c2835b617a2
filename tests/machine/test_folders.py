"""Folders are written whole or not at all."""

import os
import subprocess
import sys

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


KILLED = """
import os, sys
from pathlib import Path
from laconic.machine.folders import folder_atomically
with folder_atomically(Path(sys.argv[1])) as place:
    (place / "half").write_text("half")
    os._exit(1)
"""


def test_what_a_killed_writer_leaves_is_put_away_by_the_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "folder")], check=False, timeout=60)
    (tmp_path / ".folder-another").mkdir()  # of no writer
    assert len(list(tmp_path.iterdir())) == 2
    with folder_atomically(tmp_path / "folder") as first, folder_atomically(tmp_path / "folder") as second:
        assert first.exists()  # its writer lives
        (second / "whole").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder-another", "folder"]


def test_an_old_folder_that_nothing_has_replaced_comes_back(tmp_path):
    """A writer was killed between two renames."""
    old = tmp_path / ".folder-old-abcdefgh"
    old.mkdir()
    (old / "old").touch()

    def fail() -> None:
        with folder_atomically(tmp_path / "folder"):
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert os.listdir(tmp_path / "folder") == ["old"]


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as caught, folder_atomically(tmp_path / "file" / "folder"):
        pass
    assert caught.value.filename == str(tmp_path / "file" / "folder")
