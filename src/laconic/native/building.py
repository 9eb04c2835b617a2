"""Compiles the native library: three levels of x86-64 or one of another processor, linked into one shared library.

Imports nothing of laconic, since the build hook runs it before laconic is there: `python building.py [OUTPUT]`.
"""

import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ["-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
LEVELS = {"v2": "x86-64-v2", "v3": "x86-64-v3", "v4": "x86-64-v4"}


def build(output: Path, compiler: str = "") -> Path:
    cc = shlex.split(compiler or os.environ.get("CC") or "cc")
    levels = platform.machine().lower() in ("x86_64", "amd64")
    with tempfile.TemporaryDirectory(prefix="laconic-") as folder:
        objects = []
        for level, march in LEVELS.items() if levels else [("native", "")]:
            objects.append(f"{folder}/engine_{level}.o")
            flags = [f"-march={march}", "-mprefer-vector-width=512"] if march else []
            subprocess.run([*cc, *FLAGS, *flags, f"-DLACONIC_LEVEL={level}", "-c", str(HERE / "engine.c"), "-o", objects[-1]], check=True)
        objects.append(f"{folder}/laconic.o")
        define = ["-DLACONIC_LEVELS"] if levels else []
        subprocess.run([*cc, *FLAGS, *define, "-c", str(HERE / "laconic.c"), "-o", objects[-1]], check=True)
        subprocess.run([*cc, "-shared", *objects, "-o", str(output)], check=True)
    return output


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "liblaconic.so")))
