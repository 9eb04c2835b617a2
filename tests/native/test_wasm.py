"""The WebAssembly module that `make wheels` writes: complete in itself, and as strict with plans as any other."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "dist" / "laconic.wasm"
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="no node here"),
    pytest.mark.skipif(not MODULE.exists(), reason="no dist/laconic.wasm; make wheels"),
]


def run_wasm(**asked: object) -> dict[str, object]:
    """What run_wasm.mjs prints."""
    command = [str(NODE), str(Path(__file__).with_name("run_wasm.mjs")), str(MODULE), json.dumps(asked)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.parametrize("size", [0, 3, 100_000])
def test_garbage_is_no_plan(size, tmp_path):
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"\xa5" * size)
    assert run_wasm(plan=str(plan)) == {"error": 1, "message": "not a plan, or cut off"}


def test_the_module_needs_nothing_of_its_host():
    program = """
        const module = new WebAssembly.Module(require("fs").readFileSync(process.argv[1]));
        const names = WebAssembly.Module.exports(module).map((one) => one.name).sort();
        console.log(JSON.stringify([WebAssembly.Module.imports(module), names]));
    """
    done = subprocess.run([str(NODE), "-e", program, str(MODULE)], capture_output=True, text=True, check=True)
    functions = ("caption", "check", "features", "level", "message", "side", "use", "word", "workspace")
    assert json.loads(done.stdout) == [[], ["__heap_base", *(f"laconic_{name}" for name in functions), "memory"]]
