"""Files appear whole or not at all."""

import os

import pytest

from laconic.machine.files import atomically, write_text


def test_whole(tmp_path):
    write_text(tmp_path / "a.txt", "dürr")
    assert (tmp_path / "a.txt").read_text(encoding="utf8") == "dürr"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_not_at_all(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with atomically(path) as file:
            file.write(b"half of")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
