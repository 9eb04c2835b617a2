"""Files appear whole or not at all, and nothing but the file that was named is touched."""

import os
import signal
import stat
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

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


def test_a_file_of_ones_own_beside_it_is_left_alone(tmp_path):
    (tmp_path / "a.txt.tmp").write_text("mine")
    (tmp_path / "b.txt.tmp").symlink_to("victim")
    write_text(tmp_path / "a.txt", "new")
    write_text(tmp_path / "b.txt", "new")
    assert (tmp_path / "a.txt.tmp").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "a.txt.tmp", "b.txt", "b.txt.tmp"]


def test_permissions_are_those_of_the_old_file_or_the_umask(tmp_path):
    old = tmp_path / "old"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        write_text(old, "new")
        write_text(tmp_path / "new", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    old.chmod(0o600)
    with atomically(old) as file:  # nobody else reads it meanwhile either
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link"
    link.symlink_to("there/a.txt")
    for text in ("made", "replaced"):
        write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert os.listdir(tmp_path / "there") == ["a.txt"]


def test_a_pipe_is_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_text, args=(pipe, "through"))
    writer.start()
    assert pipe.read_text() == "through"
    writer.join()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_device_is_written_into():
    write_text(Path("/dev/null"), "nothing")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_stream_of_the_process_is_written_into(tmp_path):
    program = """
from pathlib import Path
from laconic.machine.files import write_text
print("one", flush=True)
write_text(Path("/dev/stdout"), "two\\n")
print("three")
"""
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out").read_text().split() == ["one", "two", "three"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        write_text(tmp_path / "folder", "text")
    assert os.listdir(tmp_path) == ["folder"]


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError, match="No such file") as caught:
        write_text(tmp_path / "nowhere" / "a.txt", "text")
    assert caught.value.filename == str(tmp_path / "nowhere" / "a.txt")
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(Path("/dev/full"), "text")
    assert caught.value.filename == "/dev/full"


def test_errors_of_other_files_keep_their_names(tmp_path):
    def fail() -> None:
        with atomically(tmp_path / "a.txt"):
            open(tmp_path / "absent")  # noqa: SIM115

    with pytest.raises(FileNotFoundError) as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "absent")


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, os.fsdecode(b"\xff\xfe"), "a\nb"])
def test_any_name_that_the_system_can_hold(tmp_path, name):
    for text in ("one", "two"):
        write_text(tmp_path / name, text)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "two"


def test_two_writers_at_once_each_write_a_file_of_their_own(tmp_path):
    path = tmp_path / "a.txt"
    with atomically(path) as first, atomically(path) as second:
        first.write(b"first" * 1000)
        second.write(b"second")
        first.write(b"first")
    assert path.read_bytes() == b"first" * 1001  # the last to finish
    assert os.listdir(tmp_path) == ["a.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from laconic.machine.files import atomically
with atomically(Path(sys.argv[1])) as file:
    file.write(b"half of")
    print("begun", flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "killed" else sys.stdin.read()
"""


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_of_living_ones(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "a.txt.b"
    for target in (path, other):
        done = subprocess.run([sys.executable, "-c", KILLED, str(target), "killed"], stdout=subprocess.DEVNULL)
        assert done.returncode == -signal.SIGKILL
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), "lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        living.stdout.readline()
        left = os.listdir(tmp_path)
        assert len(left) == 2 + 0  # the living one has swept what its predecessor left
        assert all(name.startswith(".a.txt.") and name.endswith(".tmp") for name in left)
        write_text(path, "whole")
        living.stdin.close()
        living.wait()
    assert path.read_text() == "half of"  # the last to finish
    assert sorted(os.listdir(tmp_path))[1:] == ["a.txt"]  # and what was left of the other output
    write_text(other, "whole")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "a.txt.b"]


def test_the_header_of_a_npy_file_is_bounded_before_it_is_read():
    file = BytesIO()
    np.save(file, np.zeros((2, 3), np.float32))
    file.seek(0)
    assert npy_header(file) == ((2, 3), np.dtype(np.float32))
    for head in (b"\x93NUMPY\x02\0" + (3 << 30).to_bytes(4, "little"), b"\x93NUMPY\x01\0\xff\xff"):
        with pytest.raises(ValueError, match="a header of"):
            npy_header(BytesIO(head + b" " * 99))
