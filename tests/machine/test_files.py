"""Files appear whole or not at all."""

import os
from io import BytesIO

import numpy as np
import pytest

from laconic.machine.files import atomically, npy_header, write_text


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


def test_the_header_of_a_npy_file_is_bounded_before_it_is_read():
    file = BytesIO()
    np.save(file, np.zeros((2, 3), np.float32))
    file.seek(0)
    assert npy_header(file) == ((2, 3), np.dtype(np.float32))
    for head in (b"\x93NUMPY\x02\0" + (3 << 30).to_bytes(4, "little"), b"\x93NUMPY\x01\0\xff\xff"):
        with pytest.raises(ValueError, match="a header of"):
            npy_header(BytesIO(head + b" " * 99))
