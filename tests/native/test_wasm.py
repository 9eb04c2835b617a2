"""The WebAssembly module that `make wasm` writes: complete in itself, and as strict with plans as any other."""

import json
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from laconic import store
from laconic.decode.search import Decoding
from laconic.native.building import MODULE
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.planning import make_plan
from laconic.spec.model import EncoderConfig

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_plans.py")))
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="no node here"),
    pytest.mark.skipif(not MODULE.exists(), reason="no WebAssembly module here; make wasm"),
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


@pytest.mark.parametrize("beam", [1, 3])
def test_captions_are_those_of_the_library(beam, tmp_path):
    if library() is None:
        pytest.skip("no native library here")
    tiny_plan, channels, words = (TINY[name] for name in ("tiny_plan", "CHANNELS", "WORDS"))
    plan, positions = tiny_plan(), np.array([4, 1, 3], np.uint32)
    features = np.random.default_rng(0).standard_normal((positions.sum(), channels)).astype(np.float32)
    (tmp_path / "a.plan").write_bytes(plan.data.tobytes())
    (tmp_path / "features").write_bytes(features.tobytes())
    expected = NativePath(plan).search(Inputs(features=features, positions=positions), Decoding(beam, 5))
    found = run_wasm(
        plan=str(tmp_path / "a.plan"), features=str(tmp_path / "features"), positions=positions.tolist(), count=3,
        beam=beam, max_length=5,
    )  # fmt: skip
    for image, hypotheses in enumerate(expected):
        assert [tokens[: len(h.tokens)] for tokens, h in zip(found["tokens"][image], hypotheses, strict=True)] == [
            list(h.tokens) for h in hypotheses
        ]
        np.testing.assert_allclose(found["scores"][image], [h.score for h in hypotheses], rtol=1e-6)
        assert found["words"][image][0] == [words[token] for token in found["tokens"][image][0]]


@pytest.mark.parametrize("captioner", ["soft_attention", "up_down", "object_relation", "aoanet"])
def test_photos_get_the_same_captions(captioner, random_captioner, tmp_path):
    plan = make_plan(store.load(random_captioner(captioner, EncoderConfig("mobilenet_v1_025", 64, 16))))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    plan.save(tmp_path / "a.plan")
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    found = run_wasm(
        plan=str(tmp_path / "a.plan"), pixels=str(tmp_path / "pixels"), count=3, beam=3, max_length=8
    )  # fmt: skip
    runner = NumpyPath(plan) if library() is None else NativePath(plan)
    expected = runner.search(Inputs(pixels=pixels), Decoding(3, 8))
    for tokens, scores, hypotheses in zip(found["tokens"], found["scores"], expected, strict=True):
        assert tuple(tokens[0][: len(hypotheses[0].tokens)]) == hypotheses[0].tokens
        np.testing.assert_allclose(scores, [h.score for h in hypotheses], rtol=1e-4)


def test_the_module_needs_nothing_of_its_host():
    program = """
        const module = new WebAssembly.Module(require("fs").readFileSync(process.argv[1]));
        const names = WebAssembly.Module.exports(module).map((one) => one.name).sort();
        console.log(JSON.stringify([WebAssembly.Module.imports(module), names]));
    """
    done = subprocess.run([str(NODE), "-e", program, str(MODULE)], capture_output=True, text=True, check=True)
    functions = (
        "caption",
        "check",
        "digits",
        "features",
        "level",
        "message",
        "number",
        "side",
        "use",
        "word",
        "workspace",
    )
    assert json.loads(done.stdout) == [[], ["__heap_base", *(f"laconic_{name}" for name in functions), "memory"]]
