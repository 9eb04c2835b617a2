"""Compiles the native library into the wheel. Where that fails the wheel has none and runs everywhere, slower.

The WebAssembly module goes along where `make wasm` has compiled it from the same sources.

LACONIC_NATIVE=0 in the environment leaves the library out; LACONIC_TARGET compiles it for another machine
(`make wheels`). An editable installation has both beside their sources.
"""

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("src", "laconic", "native")


class NativeLibrary(BuildHookInterface[Any]):
    """The hook that hatchling looks for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and tells the wheel which machines it is for."""
        sources = Path(self.root, NATIVE)
        building = runpy.run_path(str(sources / "building.py"))
        if version != "editable" and building["is_compiled_from_these"](building["MODULE"]):
            build_data["force_include"][str(building["MODULE"])] = f"laconic/native/{building['MODULE'].name}"
        if os.environ.get("LACONIC_NATIVE") == "0":
            return
        other = os.environ.get("LACONIC_TARGET")
        self.folder = tempfile.TemporaryDirectory(prefix="laconic-", ignore_cleanup_errors=True)
        try:
            target = building["TARGETS"][other] if other else building["this_machine"]()
            folder = sources if version == "editable" else Path(self.folder.name)
            library = building["build"](target, folder / target.library)
        except building["FAILURES"] as error:
            if other:
                raise
            self.app.display_warning(f"laconic goes without its native library, numpy takes its place ({error})")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{target.tag}"
        if version != "editable":
            build_data["force_include"][str(library)] = f"laconic/native/{target.library}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written."""
        if folder := getattr(self, "folder", None):
            folder.cleanup()
