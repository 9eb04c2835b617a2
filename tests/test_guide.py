"""The guide's code runs as it stands, block after block of a page, in a folder that holds two photos."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from laconic.data.scenes import Scenes

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = {path.stem: BLOCK.findall(path.read_text(encoding="utf8")) for path in sorted(GUIDE.glob("*.md"))}
TOOLS = {"anywhere": ("curl", "cc")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for index, name in enumerate(("photo.jpg", "another.jpg")):
        Image.fromarray(Scenes(2, "test")[index].pixels()).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_blocks_say_what_they_are():
    kinds = {kind for blocks in PAGES.values() for kind, _ in blocks}
    assert kinds == {"bash", "python", "text"}
    assert set(PAGES) == {"start", "prune", "compress", "anywhere", "limits"}


LONG = {"compress": pytest.mark.timeout(400)}  # trains four small captioners


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=LONG.get(page, ())) for page, blocks in PAGES.items() if blocks]
)
def test_the_blocks_of_a_page(page, folder):
    for tool in TOOLS.get(page, ()):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    names: dict[str, object] = {}
    for kind, code in PAGES[page]:
        if kind == "python":
            exec(compile(code, f"{page}.md", "exec"), names)
        elif kind == "bash":
            script = f"set -euo pipefail\n{code}"
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
