"""Plans from strangers: whatever is damaged is refused, or does what numpy does with it, and no sanitizer complains.

The library is compiled with gcc's address and undefined behaviour sanitizers and with gaps between all parts of its
workspace, and runs in a process of its own: see mutations.py.
"""

import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from laconic import native

HERE = Path(__file__).parent
SMALL = runpy.run_path(str(HERE / "small_plans.py"))
SOURCES = [str(Path(native.__file__).with_name(name)) for name in ("engine.c", "laconic.c", "gating.c", "training.c")]
FLAGS = [
    *("-O1", "-std=gnu11", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wno-psabi", "-DLACONIC_GUARD", "-fsanitize=address,undefined", "-fno-sanitize-recover"),
]
X86 = platform.machine().lower() in ("x86_64", "amd64")
DAMAGES = {"v3": 1500, "v2": 500} if X86 else {"native": 2000}  # by instruction set
SECONDS = 600.0  # of a busy machine; mutations.py limits the processor time of each plan


def runtime() -> str:
    """The library of gcc's address sanitizer, which is loaded before Python is; skips where there is none."""
    if sys.platform != "linux" or not shutil.which("gcc"):
        pytest.skip("gcc on Linux is needed")
    asked = ["gcc", "-print-file-name=libasan.so"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()
    if not Path(found).is_absolute():
        pytest.skip("gcc has no sanitizers here")
    return found


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(path) for path in SMALL["save_plans"](tmp_path_factory.mktemp("plans"))]


@pytest.fixture(scope="module")
def reports(plans: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """Of each instruction set: exit code and output of mutations.py. They are built and run side by side."""
    preloaded, folder = runtime(), tmp_path_factory.mktemp("watched")
    levels = [level for level in DAMAGES if level != "v3" or "avx2" in Path("/proc/cpuinfo").read_text().split()]

    def report(level: str) -> tuple[int, str]:
        march, library = [f"-march=x86-64-{level}"] if X86 else [], str(folder / f"{level}.so")
        subprocess.run(["gcc", *FLAGS, *march, *SOURCES, "-o", library], check=True, timeout=SECONDS)
        watched = {"LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
        paths = os.pathsep.join([str(Path(native.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        count = sum(DAMAGES.values()) if len(levels) == 1 else DAMAGES[level]
        done = subprocess.run(
            [sys.executable, str(HERE / "mutations.py"), library, str(10_000 * len(level)), str(count), *plans],
            env={**os.environ, **watched, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    with ThreadPoolExecutor() as pool:
        yield dict(zip(levels, pool.map(report, levels), strict=True))


@pytest.mark.timeout(2 * SECONDS)
def test_damaged_plans_are_refused_or_equal(reports):
    for level, (code, said) in reports.items():
        assert code == 0, f"{level}: {said[-5000:]}"
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", said)}
        assert min(counts["refused"], counts["equal"]) > sum(counts.values()) / 10
