"""Compiles the native library: three levels of x86-64 or one of another processor, linked into one shared library.

    python building.py            for this machine, next to the sources, unless what is there is newer than they are
    python building.py TARGET OUT for another one, with Zig's compiler (PyPI package ziglang)

The WebAssembly module lies next to the sources, too, in a wheel as in a clone after `make wasm`. It ends with a digest
of what it was compiled from, because files of a wheel have no dates to go by.

Imports nothing of laconic, since the build hook runs it before laconic is there.
"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MODULE = HERE / "laconic.wasm"
FLAGS = (
    *("-O3", "-std=gnu11", "-fvisibility=hidden", "-DLACONIC_SHARED_LIBRARY"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    "-Wno-psabi",  # vectors are passed between functions of one file only
)
LEVELS = ("v2", "v3", "v4")  # of x86-64
PER_LEVEL, ONCE = ("engine.c", "gating.c"), ("laconic.c", "training.c")
SECONDS = 300.0  # for a compiler that hangs
STAMP = b"laconic.sources"  # the name of the section that holds the digest
FAILURES = (OSError, ValueError, subprocess.SubprocessError)  # no compiler, no command in CC, one that fails or hangs


@dataclass(frozen=True)
class Target:
    """A kind of machine: what it is to the compiler, to the linker and to pip."""

    library: str
    tag: str  # of the wheel's platform; empty for what is in no wheel
    levels: bool  # compiled for each of LEVELS
    compiler: tuple[str, ...]
    flags: tuple[str, ...] = ("-fPIC",)
    link: tuple[str, ...] = ("-shared", "-s")
    sources: tuple[str, ...] = ONCE  # besides PER_LEVEL
    per_level: tuple[str, ...] = PER_LEVEL
    march: str = "x86-64-{}"
    stamped: bool = False  # ends with what `_stamp` makes


def _zig(triple: str) -> tuple[str, ...]:
    return sys.executable, "-m", "ziglang", "cc", "-target", triple


_MACOS, _MARCH = ("-shared", "-s", "-Wl,-dead_strip", "-Wl,-install_name,@rpath/liblaconic.dylib"), "x86_64_{}"
TARGETS = {
    "linux-x86_64": Target(
        "liblaconic.so", "manylinux_2_17_x86_64.manylinux2014_x86_64", True, _zig("x86_64-linux-gnu.2.17"), march=_MARCH
    ),
    "linux-aarch64": Target(
        "liblaconic.so", "manylinux_2_17_aarch64.manylinux2014_aarch64", False, _zig("aarch64-linux-gnu.2.17")
    ),
    "macos-arm64": Target("liblaconic.dylib", "macosx_11_0_arm64", False, _zig("aarch64-macos.11.0"), link=_MACOS),
    "macos-x86_64": Target(
        "liblaconic.dylib", "macosx_11_0_x86_64", True, _zig("x86_64-macos.11.0"), link=_MACOS, march=_MARCH
    ),
    "windows-x86_64": Target(
        "laconic.dll",
        "win_amd64",
        True,
        _zig("x86_64-windows-gnu"),
        flags=(),
        link=("-shared", "-s", "-nostdlib"),
        sources=(*ONCE, "windows.c"),
        march=_MARCH,
    ),
    "wasm": Target(
        "laconic.wasm",
        "",
        False,
        _zig("wasm32-wasi"),
        flags=("-msimd128", "-mbulk-memory"),  # the second for copies of memory, which nothing is linked for
        link=("-nostdlib", "-s", "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--export=__heap_base"),
        sources=("laconic.c",),
        per_level=("engine.c",),
        stamped=True,
    ),
}


def this_machine() -> Target:
    """With `cc`, or what CC says."""
    processor = platform.machine().lower()
    tag = sysconfig.get_platform().replace("universal2", processor)  # one processor of the two is compiled for
    library = {"win32": "laconic.dll", "darwin": "liblaconic.dylib"}.get(sys.platform, "liblaconic.so")
    return Target(
        library,
        tag.replace("-", "_").replace(".", "_"),
        processor in ("x86_64", "amd64"),
        tuple(shlex.split(os.environ.get("CC") or "cc")),
        flags=() if sys.platform == "win32" else ("-fPIC",),
        link=("-shared",) if sys.platform == "darwin" else ("-shared", "-s"),
    )


def build(target: Target, output: Path) -> Path:
    """Compiles the library into a file, whole or not at all. Raises one of FAILURES."""
    with tempfile.TemporaryDirectory(prefix="laconic-", ignore_cleanup_errors=True) as folder:
        commands = list(_compilations(target, Path(folder)))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        made = Path(folder) / target.library
        _run([*target.compiler, *target.link, *(command[-1] for command in commands), "-o", str(made)])
        partial = output.with_name(f"{output.name}.{os.getpid()}.tmp")
        partial.write_bytes(made.read_bytes() + (_stamp() if target.stamped else b""))
    os.replace(partial, output)  # a process that has loaded the old one keeps it
    return output


def _compilations(target: Target, folder: Path) -> Iterator[list[str]]:
    """Commands that end in the object that they make."""
    command = [*target.compiler, *FLAGS, *target.flags]
    for source in target.per_level:
        for level in LEVELS if target.levels else ("native",):
            flags = [f"-DLACONIC_LEVEL={level}"]
            if target.levels:  # compilers would rather avoid whole 512-bit vectors
                flags += [f"-march={target.march.format(level)}", "-mprefer-vector-width=512"]
            yield [*command, *flags, "-c", str(HERE / source), "-o", str(folder / f"{source}.{level}.o")]
    flags = ["-DLACONIC_LEVELS"] if target.levels else []
    for source in target.sources:
        yield [*command, *flags, "-c", str(HERE / source), "-o", str(folder / f"{source}.o")]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise ChildProcessError(f"{command[0]}: {said or f'exit code {done.returncode}'}")


def is_current(library: Path) -> bool:
    """Whether a library is there and newer than all it is made of."""
    return library.exists() and library.stat().st_mtime > max(source.stat().st_mtime for source in _made_of())


def is_compiled_from_these(module: Path) -> bool:
    """Whether a WebAssembly module is there and was compiled from the sources as they are now."""
    return module.exists() and module.read_bytes().endswith(_stamp())


def _stamp() -> bytes:
    """A section of a WebAssembly module that says what it was compiled from, and that whatever runs it skips."""
    digest = hashlib.sha256()
    for source in _made_of():
        text = source.read_text(encoding="utf8").encode()  # the same with line ends of any kind
        digest.update(f"{source.name} {len(text)}\n".encode() + text)
    content = bytes([len(STAMP)]) + STAMP + digest.digest()
    return bytes([0, len(content)]) + content  # 0: of the embedder's own; lengths below 128 take one byte


def _made_of() -> list[Path]:
    return [*sorted(HERE.glob("*.[ch]")), Path(__file__)]


def main(words: list[str]) -> None:
    if words:
        name, output = words
        print(build(TARGETS[name], Path(output)))
        return
    try:
        target = this_machine()
        library = HERE / target.library
        if not is_current(library):
            build(target, library)
        print(library)
    except FAILURES as error:
        print(f"note: the native library is not compiled, numpy takes its place ({error})", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
