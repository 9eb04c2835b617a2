"""The command itself: Ctrl-C at any moment of its start is one line."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from laconic import __main__ as command

INTERRUPTED = """
import importlib.abc, os, signal, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = {words!r}
from laconic.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("laconic.cli", "--version"),
        ("numpy", "inspect nowhere"),
        ("tyro", "caption nowhere photo.jpg"),
        ("laconic.store", "inspect nowhere"),
        ("torch", "caption here photo.jpg --backend torch"),
    ],
)
def test_ctrl_c_while_modules_load(tmp_path: Path, module: str, line: str) -> None:
    (tmp_path / "here").touch()
    program = INTERRUPTED.format(module=module, words=line.split())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "laconic: stopped\n")


def test_stopped_afterwards_is_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    """So that what is under way is put away."""
    with pytest.raises(KeyboardInterrupt):
        command._stop(signal.SIGINT, None)
    with pytest.raises(SystemExit, match="143"):
        command._stop(signal.SIGTERM, None)
    assert capfd.readouterr().err == "laconic: stopped\n"


@pytest.mark.parametrize(
    ("line", "threads"),
    [("inspect x", "1"), ("", "1"), ("train x", None), ("pack x", None), ("caption x --backend torch", None)],
)
def test_matrix_products_get_threads_where_they_need_them(line, threads, monkeypatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    command._spare_threads(line.split())
    assert os.environ.pop("OPENBLAS_NUM_THREADS", None) == threads
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    command._spare_threads(line.split())
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"


def test_the_command_is_this_one() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["laconic"].partition(":")
    assert getattr(import_module(module), name) is command.main
