"""Builds a wheel for every kind of machine, and the WebAssembly module that each holds, on this one: `make wheels`.

    python packaging/wheels.py --out dist [TARGET ...]

Needs hatchling and ziglang. The module is made first, beside its sources, where the build hook finds it. Each archive
is looked into before it counts: its tag, and that library and module are for those machines and have the functions of
laconic.h.
"""

import argparse
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "src" / "laconic" / "native"
sys.path.insert(0, str(NATIVE))

from building import MODULE, TARGETS, build, is_compiled_from_these  # noqa: E402

BEGINNINGS = {  # of a library: the format, and in it the processor
    "linux-x86_64": rb"\x7fELF\x02\x01.{12}\x3e\x00",
    "linux-aarch64": rb"\x7fELF\x02\x01.{12}\xb7\x00",
    "macos-arm64": rb"\xcf\xfa\xed\xfe\x0c\x00\x00\x01",
    "macos-x86_64": rb"\xcf\xfa\xed\xfe\x07\x00\x00\x01",
    "windows-x86_64": rb"MZ.*?PE\x00\x00\x64\x86",
    "wasm": rb"\x00asm\x01\x00\x00\x00",
}


def make_module() -> bytes:
    """The WebAssembly module, beside its sources. Raises one of building.FAILURES, or SystemExit as `check_library`."""
    if not is_compiled_from_these(MODULE):
        build(TARGETS["wasm"], MODULE)
    check_library(MODULE.read_bytes(), "wasm")
    return MODULE.read_bytes()


def make_wheel(name: str, out: Path) -> Path:
    """Builds the wheel of a target, the only one in `out`. SystemExit with what the builder says where that fails."""
    pattern = f"laconic-*-py3-none-{TARGETS[name].tag}.whl"
    for old in out.glob(pattern):
        old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    environment = os.environ | {"LACONIC_TARGET": name}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    [made] = out.glob(pattern)
    return made


def library_in(wheel: Path, name: str) -> bytes:
    """The library in a wheel, the only one beside the module. SystemExit where the wheel is not what it should be."""
    target = TARGETS[name]
    with zipfile.ZipFile(wheel) as archive:
        found = [one for one in archive.namelist() if one.endswith((".so", ".dylib", ".dll"))]
        if found != [f"laconic/native/{target.library}"]:
            raise SystemExit(f"{wheel}: holds {found}, not just {target.library}")
        module = f"laconic/native/{MODULE.name}"
        if module not in archive.namelist() or archive.read(module) != MODULE.read_bytes():
            raise SystemExit(f"{wheel}: lacks {MODULE.name}, or holds another one")
        [about] = [one for one in archive.namelist() if one.endswith(".dist-info/WHEEL")]
        if f"-{target.tag.split('.')[0]}\n" not in archive.read(about).decode():
            raise SystemExit(f"{wheel}: says in {about} that it is for other machines")
        return archive.read(found[0])


def check_library(library: bytes, name: str) -> None:
    """SystemExit where the library is for other machines, or lacks a function of laconic.h."""
    if not re.match(BEGINNINGS[name], library, re.DOTALL):
        raise SystemExit(f"{name}: the library is for other machines")
    header = (NATIVE / "laconic.h").read_text(encoding="utf8")
    functions = re.findall(r"^LACONIC_API .*?\b(laconic_\w+)\(", header, re.MULTILINE)
    if missing := [function for function in functions if function.encode() not in library]:
        raise SystemExit(f"{name}: the library lacks {', '.join(missing)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    module = make_module()
    print(f"{MODULE}  {len(module):,} bytes", flush=True)
    for name in options.targets or TARGETS:
        if TARGETS[name].tag:
            made = make_wheel(name, options.out)
            library = library_in(made, name)
            check_library(library, name)
            print(f"{made}  {made.stat().st_size:,} bytes, library {len(library):,}", flush=True)


if __name__ == "__main__":
    main()
