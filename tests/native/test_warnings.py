"""The library compiles without a warning."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from laconic import native

SOURCES = [Path(native.__file__).with_name(name) for name in ("engine.c", "laconic.c", "gating.c", "training.c")]
FLAGS = ["-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-c", "-o", "/dev/null"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = ["x86-64-v2", "x86-64-v4"] if X86 else ["native"]  # vectors of 4 numbers, and of 8 and 16


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc")
@pytest.mark.parametrize("level", LEVELS)
def test_no_warnings(level):
    for source in SOURCES:
        command = ["gcc", *FLAGS, f"-march={level}", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-5000:]
