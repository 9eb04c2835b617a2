"""What this machine is: the processor by name, its instruction sets, versions of what runs on it."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from laconic.native.library import library

PACKAGES = ("numpy", "torch", "onnxruntime", "openvino")
CPUINFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Its name, as far as the system says it."""
    return _line("model name") or platform.processor() or platform.machine()


def flags() -> str:
    """Instruction sets, in Linux's words; empty where the system does not list them."""
    return _line("flags") or _line("Features")


def has_avx512() -> bool:
    """Whether bars hold in full: those of processors with AVX2 alone are lower."""
    return "avx512f" in flags().split()


def level() -> str:
    """The instruction set that the engine uses."""
    found = library()
    return "none" if found is None else str(found.laconic_level().decode())


def versions() -> dict[str, str]:
    """Of Python and the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _line(key: str) -> str:
    """What the first line of that key in Linux's list of processors says."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in text.splitlines() if line.partition(":")[0].strip() == key), ""
    )
