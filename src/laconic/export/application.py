"""The target `c`: a plan, the C library's sources, and an example that captions with them, ready to be compiled.

Nothing else is needed, neither Python nor a library: docs/guide/anywhere.md says how it gets into an app.
"""

import re
import shutil
from pathlib import Path

from laconic.export.table import Options
from laconic.native import building
from laconic.runtime.planning import make_plan
from laconic.spec.packed import read_spec
from laconic.store import Packed

NATIVE, APPLICATION = building.HERE, Path(__file__).parent / "c"
LIBRARY = ("laconic.c", "engine.c")  # what is compiled
EXAMPLE = ("caption.c", "CMakeLists.txt")
PLAN = "captioner.plan"
_INCLUDED = re.compile(r'^#include "(\w+\.h)"', re.MULTILINE)


def write(packed: Packed, folder: Path, options: Options) -> list[str]:
    """Fills a folder; lines that say how to compile what is in it. FormatError where the engine runs no such model."""
    plan = make_plan(packed, spec=read_spec(packed), width=options.width or "exact")
    plan.save(folder / PLAN)
    for name in sources():
        shutil.copyfile(NATIVE / name, folder / name)
    for name in EXAMPLE:
        shutil.copyfile(APPLICATION / name, folder / name)
    return [
        f"{PLAN}: {plan.data.size:,} bytes",
        "compile: cc -O3 -march=native -ffp-contract=fast laconic.c engine.c caption.c -o caption",
        "or: cmake -B build && cmake --build build",
    ]


def sources() -> list[str]:
    """Names of the C library's files that an application compiles, and of the headers that they include."""
    found, waiting = set[str](), list(LIBRARY)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _INCLUDED.findall((NATIVE / name).read_text(encoding="utf8"))
    return sorted(found)
