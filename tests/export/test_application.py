"""The application in C: it captions, and says what is wrong with what it is given."""

import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import laconic
from laconic import store
from laconic.runtime.planning import make_plan
from laconic.spec.model import EncoderConfig

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "src" / "laconic" / "native"
CC = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]


@pytest.fixture(scope="module")
def caption(tmp_path_factory):
    """Runs the application: exit code, output, errors."""
    compiler = shutil.which("cc") or shutil.which(CC)
    if compiler is None:
        pytest.skip("no C compiler here")
    program = tmp_path_factory.mktemp("example") / "caption"
    sources = [NATIVE / "laconic.c", NATIVE / "engine.c", ROOT / "examples" / "caption.c"]
    subprocess.run([compiler, "-std=gnu11", "-Wno-psabi", f"-I{NATIVE}", *sources, "-o", program], check=True)

    def run(*words: Path) -> tuple[int, str, str]:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("captioner", ["soft_attention", "up_down", "object_relation", "aoanet"])
def test_it_says_what_the_engine_says(caption, captioner, random_captioner, tmp_path):
    file = random_captioner(captioner, EncoderConfig("mobilenet_v1_025", 64, 16))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    plan = make_plan(store.load(file))
    plan.save(tmp_path / "a.plan")
    (tmp_path / "a.rgb").write_bytes(pixels.tobytes())
    assert caption(tmp_path / "a.plan", tmp_path / "a.rgb") == (0, f"{laconic.load(file).caption([pixels])[0]}\n", "")
    (tmp_path / "a.rgb").write_bytes(bytes(3))
    refused = 2, "", "images or options that this plan cannot take\n"
    assert caption(tmp_path / "a.plan", tmp_path / "a.rgb") == refused


def test_it_says_what_is_wrong(caption, tmp_path):
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xa5" * 1000)
    assert caption(garbage, garbage) == (2, "", "not a plan, or cut off\n")
    assert caption()[0] == 2
    assert "No such file" in caption(garbage / "nowhere", garbage)[2] + caption(tmp_path / "nowhere", garbage)[2]
