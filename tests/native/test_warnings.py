"""The library compiles without a warning, at every level that the compiler knows."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from laconic import native

SOURCES = [Path(native.__file__).with_name(name) for name in ("engine.c", "laconic.c", "gating.c", "training.c")]
FLAGS = ["-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-fsyntax-only"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "native"] if X86 else ["native"]


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc")
@pytest.mark.parametrize("level", LEVELS)
def test_no_warnings(level):
    done = subprocess.run(
        ["gcc", *FLAGS, f"-march={level}", *map(str, SOURCES)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-5000:]
