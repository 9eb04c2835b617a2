"""The application in C: it compiles from what an export holds, captions, and says what is wrong."""

import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import laconic
from laconic.export.application import sources
from laconic.export.table import Options, export
from laconic.spec.model import EncoderConfig

CC = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]


def compiled(folder: Path) -> Path:
    """The program of an exported folder, from the files in it alone."""
    compiler = shutil.which("cc") or shutil.which(CC)
    if compiler is None:
        pytest.skip("no C compiler here")
    sources = ["laconic.c", "engine.c", "caption.c"]
    command = [compiler, "-std=gnu11", "-Wno-psabi", *sources, "-o", "caption"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "caption"


@pytest.fixture(scope="module")
def caption(random_captioner, tmp_path_factory):
    """Runs the application: exit code, output, errors."""
    folder = tmp_path_factory.mktemp("application") / "c"
    export(random_captioner("soft_attention", EncoderConfig("mobilenet_v1_025", 64, 16)), folder, "c")
    program = compiled(folder)

    def run(*words: Path) -> tuple[int, str, str]:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("captioner", ["soft_attention", "up_down", "object_relation", "aoanet"])
def test_it_says_what_the_engine_says(caption, captioner, random_captioner, tmp_path):
    file = random_captioner(captioner, EncoderConfig("mobilenet_v1_025", 64, 16))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    export(file, tmp_path / "c", "c", Options(width="bfloat16" if captioner == "aoanet" else None))
    (tmp_path / "a.rgb").write_bytes(pixels.tobytes())
    assert caption(tmp_path / "c" / "captioner.plan", tmp_path / "a.rgb") == (
        0,
        f"{laconic.load(file).caption([pixels])[0]}\n",
        "",
    )
    (tmp_path / "a.rgb").write_bytes(bytes(3))
    refused = 2, "", "images or options that this plan cannot take\n"
    assert caption(tmp_path / "c" / "captioner.plan", tmp_path / "a.rgb") == refused


def test_it_says_what_is_wrong(caption, tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xa5" * 1000)
    assert caption(garbage, garbage) == (2, "", "not a plan, or cut off\n")
    assert caption()[0] == 2
    assert "No such file" in caption(garbage / "nowhere", garbage)[2] + caption(tmp_path / "nowhere", garbage)[2]


def test_it_holds_the_sources_of_the_library_and_no_others():
    names = sources()
    assert {"laconic.h", "laconic.c", "engine.c", "plan.h", "spelling.h"} <= set(names)
    assert not {"gating.c", "training.c", "windows.c", "gating.h"} & set(names)
