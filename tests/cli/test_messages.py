"""What comes from outside is shown without obeying it, on any console."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from laconic import store
from laconic.cli import main
from laconic.cli.messages import printable_lines, say
from laconic.errors import printable

BAD = "\x1b[31mred\x1b]0;title\x07\nfake: line\r\x9b\u202e\u2028"


def test_controls_and_bytes_are_escaped() -> None:
    assert printable(BAD) == r"\x1b[31mred\x1b]0;title\x07\nfake: line\r\x9b\u202e\u2028"
    assert printable(os.fsdecode(b"a\xff.jpg")) == r"a\xff.jpg"
    assert printable("\ud800") == r"\ud800"
    assert printable("dürr 犬 \\n") == "dürr 犬 \\n"
    assert printable_lines("a\n\x1bb\n") == "a\n\\x1bb\n"


def test_an_error_is_one_line_without_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"nowhere{BAD}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b" not in said
    say("two\nlines")
    assert capsys.readouterr().err == "laconic: two lines\n"


def test_names_in_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"[bold]{BAD}"
    path = tmp_path / os.fsdecode(b"\xff\x1b[31m.safetensors")
    other = tmp_path / "other"
    store.save({name: np.ones((2, 2), np.float32)}, path)
    store.save({name: np.zeros((2, 2), np.float32)}, other)
    assert main(["inspect", str(path)]) == 0
    assert main(["diff", str(path), str(other), "--json", str(tmp_path / "d.json")]) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"[bold]\x1b[31mred" in shown
    assert r"/\xff\x1b[31m.safetensors: " in shown
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["changed"][0]["name"] == name
    assert found["paths"][0] == str(path)


PROGRAM = [sys.executable, "-m", "laconic"]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Its name is no text, and neither can an ASCII console print its tensor's."""
    path = tmp_path / os.fsdecode(b"d\xc3\xbcrr\xff")
    store.save({"größe": np.ones((2, 2), np.float32)}, path)
    return path


def test_a_console_that_cannot_print_a_name(packed: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    words = ["inspect", packed.name, "--json", "out.json"]
    done = subprocess.run([*PROGRAM, *words], env=environment, capture_output=True, cwd=packed.parent, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"gr\xf6\xdfe" in done.stdout
    assert rb"d\xfcrr\xff: " in done.stdout
    assert json.loads((packed.parent / "out.json").read_text())["path"] == packed.name


@pytest.mark.parametrize(
    ("line", "closed", "code", "says"),
    [
        ("inspect M", "1", 2, "standard output is closed"),
        ("inspect M --json out.json", "1 2 0", 0, ""),
        ("inspect M --json -", "2", 0, ""),
    ],
)
def test_closed_streams(packed: Path, line: str, closed: str, code: int, says: str) -> None:
    """What is opened while they are closed must not be taken for them."""
    words = [packed.name if word == "M" else word for word in line.split()]
    shell = 'exec "$@" ' + " ".join(f"{number}>&-" for number in closed.split())
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *PROGRAM, *words], capture_output=True, text=True, cwd=packed.parent, timeout=60
    )
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == bool(says)
    if "--json -" in line and not code:
        assert json.loads(done.stdout)["path"] == packed.name
    else:
        assert done.stdout == ""
    if "out.json" in line:
        assert json.loads((packed.parent / "out.json").read_text())["path"] == packed.name


def test_a_pipe_that_is_closed_and_a_full_device(packed: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PROGRAM, "inspect", packed], stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, "inspect", packed], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (2, b"laconic: No space left on device\n")
