"""What whole processes take: a caption from a cold start, a folder with one process and two, an installation."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from laconic import data

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent
LACONIC = [sys.executable, "-m", "laconic"]
PHOTOS, SIDE = 1500, 320
PEAK_BAR, FOLDER_BAR, INSTALL_BAR, WHEEL_BAR = 120e6, 1.8, 40.0, 200_000


def cold(files: Mapping[str, tuple[Path, float]], folder: Path, rounds: int) -> list[Row]:
    """`laconic caption FILE photo.jpg`: CPU seconds (user and system) and peak memory of the process, for each file
    and the bar of its seconds."""
    photo = folder / "photo.jpg"
    _photo(photo, 0)
    rows: list[Row] = []
    for name, (file, bar) in files.items():
        command = [*LACONIC, "caption", str(file), str(photo)]
        runs = [_usage(command) for _ in range(rounds + 1)][1:]  # the first compiles Python's files
        seconds, peaks = (statistics.median(values) for values in zip(*runs, strict=True))
        case = {"captioner": name, "file_bytes": file.stat().st_size}
        less = {"less_is_better": True, "scaled": False}
        rows.append({"what": "CPU seconds of a caption", **case, "reached": seconds, "bar": bar, **less})
        rows.append({"what": "peak bytes of a caption", **case, "reached": peaks, "bar": PEAK_BAR, **less})
    return rows


def folder(file: Path, scratch: Path) -> list[Row]:
    """Photos per second of wall time of one process and of two that share the work, each on a core of its own; and
    what becomes of Flickr8k's validation photos where processes are killed. For a quiet machine."""
    photos = scratch / "photos"
    photos.mkdir()
    for number in range(PHOTOS):
        _photo(photos / f"{number:06}.jpg", number)
    seconds = {}
    for count in (1, 2):
        out = scratch / f"captions_{count}.jsonl"
        command = [*LACONIC, "caption", str(file), "--folder", str(photos), "--out", str(out)]
        started = time.perf_counter()
        _finish([_on_core(core, command) for core in range(count)])
        seconds[count] = time.perf_counter() - started
    rates = {f"photos_per_second_{count}": PHOTOS / taken for count, taken in seconds.items()}
    ratio = seconds[1] / seconds[2]
    two = {"what": "two processes over one", **rates, "reached": ratio, "bar": FOLDER_BAR, "scaled": False}
    return [two, killed(file, scratch)]


def killed(file: Path, scratch: Path) -> Row:
    """Flickr8k's validation photos by two processes, one of them killed (kill -9) a third of the way and the other two
    thirds, then by two more: the share of lines that an unbroken run has, too, in their order."""
    root = Path(os.environ.get("LACONIC_SHARED", "../shared")) / "data" / "flickr8k"
    photos = scratch / "val"
    photos.mkdir()
    for example in data.load("flickr8k", root, "val"):
        image = Path(str(example.image))
        (photos / image.name).symlink_to(image.resolve())
    commands = {
        name: [*LACONIC, "caption", str(file), "--folder", str(photos), "--out", str(scratch / f"{name}.jsonl")]
        for name in ("whole", "broken")
    }
    started = time.perf_counter()
    _finish([_on_core(core, commands["whole"]) for core in range(2)])
    seconds = time.perf_counter() - started
    for victim in [_on_core(core, commands["broken"]) for core in range(2)]:
        time.sleep(seconds / 3)
        victim.kill()
        victim.wait()
    if (scratch / "broken.jsonl").exists():
        sys.exit("the processes were killed too late: they had finished")
    _finish([_on_core(core, commands["broken"]) for core in range(2)])
    whole, broken = ((scratch / f"{name}.jsonl").read_bytes().splitlines() for name in commands)
    equal = sum(map(bytes.__eq__, whole, broken)) / max(len(whole), len(broken))
    return {"what": f"lines of {len(whole)} that are equal after kills", "reached": equal, "bar": 1.0, "scaled": False}


def install(scratch: Path) -> list[Row]:
    """`pip install .` in a fresh environment, wall seconds, and the bytes of the wheel."""
    subprocess.run([sys.executable, "-m", "venv", str(scratch / "venv")], check=True)
    pip = [str(scratch / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    started = time.perf_counter()
    subprocess.run([*pip, "install", str(ROOT)], check=True)
    seconds = time.perf_counter() - started
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(scratch / "wheel"), str(ROOT)], check=True)
    (wheel,) = (scratch / "wheel").glob("laconic-*.whl")
    less: Row = {"less_is_better": True, "scaled": False}
    return [
        {"what": "seconds of pip install .", "reached": seconds, "bar": INSTALL_BAR, **less},
        {"what": f"bytes of {wheel.name}", "reached": wheel.stat().st_size, "bar": WHEEL_BAR, **less},
    ]


def _on_core(core: int, command: list[str]) -> "subprocess.Popen[bytes]":
    """A process that has one core to itself, and uses one thread therefore."""
    pin = partial(os.sched_setaffinity, 0, {core})
    return subprocess.Popen(command, env=_one_thread(), stdout=subprocess.DEVNULL, preexec_fn=pin)


def _finish(running: "list[subprocess.Popen[bytes]]") -> None:
    """Waits for all; exits where one fails."""
    if any([process.wait() for process in running]):  # noqa: C419 - all are waited for
        sys.exit(f"failed: {running[0].args}")


# A process begins with the peak memory of the one that started it, so that is a small one.
STARTER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def _usage(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak bytes of a process; exits where it fails."""
    words = [sys.executable, "-S", "-c", STARTER, *command]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=kept)  # compiled files are kept
    code, seconds, peak = done.stdout.split()
    if int(code):
        sys.exit(f"failed: {' '.join(command)}")
    return float(seconds), float(peak) * (1 if sys.platform == "darwin" else 1024)


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _photo(path: Path, seed: int) -> None:
    """A small random picture, smooth as photos are."""
    rough = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(rough).resize((SIDE * 4 // 3, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
