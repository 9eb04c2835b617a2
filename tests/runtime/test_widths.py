"""Values of a file in a plan: codes where the file has steps, and the very same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from laconic import store
from laconic.captioner import packing
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.decode.search import Decoding
from laconic.runtime.inputs import Inputs
from laconic.runtime.matrices import unpack_matrix
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.operations import FORMS, PROGRAMS, WIDTHS
from laconic.runtime.plan import Plan
from laconic.runtime.planning import make_plan
from laconic.runtime.tables import unpack_table
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

REGIONS = EncoderConfig("regions", channels=19)
KINDS: dict[str, tuple[EncoderConfig, str, dict[str, Any]]] = {
    "lstm": (EncoderConfig("convnet", 32, 16), "soft_attention", {"hidden": 21, "word": 13}),
    "gru": (REGIONS, "soft_attention", {"hidden": 18, "word": 7, "cell": "gru"}),
    "up_down": (REGIONS, "up_down", {"hidden": 22, "word": 15, "attention": 11}),
    "object_relation": (REGIONS, "object_relation", {"layers": 1, "width": 24, "feed_forward": 17, "heads": 2}),
    "aoanet": (REGIONS, "aoanet", {"layers": 1, "width": 24, "feed_forward": 17, "heads": 2}),
}
Files = dict[str, store.Packed]


@pytest.fixture(scope="module", params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One captioner by the precision of its file; "plain" holds the numbers of "compact" as float32."""
    encoder, name, options = KINDS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(40))), "words")
        captioner = ImageCaptioner(ModelConfig(encoder, DecoderConfig(name, options)), vocabulary).eval()
        with torch.no_grad():
            for of, parameter in captioner.named_parameters():
                if parameter.dim() > 1:
                    parameter.mul_(torch.rand_like(parameter) < (0.01 if of.startswith("encoder") else 0.4))
    folder, found = tmp_path_factory.mktemp("files"), {}
    for values in ("exact", "compact"):
        packing.save(captioner, folder / values, values)
        found[values] = store.load(folder / values)
    compact = found["compact"]
    weights = dict(compact)
    store.save(weights, folder / "plain", values="exact", config=compact.config, vocabulary=compact.vocabulary)
    return {**found, "plain": store.load(folder / "plain")}


def inputs_of(packed: store.Packed) -> Inputs:
    random = np.random.default_rng(2)
    if "encoder.conv0.weight" in packed:
        return Inputs(pixels=random.integers(0, 256, (2, 32, 32, 3), np.uint8))
    boxes = np.sort(random.random((9, 2, 2)), 1).reshape(9, 4).astype(np.float32)
    return Inputs(None, random.normal(size=(9, 19)).astype(np.float32), np.array([4, 5], np.uint32), boxes)


def matrices_of(plan: Plan) -> list[NDArray[np.float32]]:
    """All matrices and tables, dense. Those of products that add up, one straight after the other, as one."""
    found = []
    for row in plan.matrices:
        unpack = unpack_table if "TABLE" in FORMS[row["form"]] else unpack_matrix
        found.append(unpack(row, plan.arena[int(row["at"]) : int(row["at"]) + int(row["bytes"])]))
    operations = [operation for program in PROGRAMS for operation in plan.program(program)]
    joined: list[NDArray[np.float32]] = []
    for matrix, weights in enumerate(found):
        at = next(i for i, (_, arguments) in enumerate(operations) if arguments.get("matrix") == matrix)
        before, now = operations[at - 1], operations[at]
        if before[0] == now[0] == "LINEAR" and before[1]["y"] == now[1]["y"] and now[1]["start"] == 1:
            joined[-1] = np.concatenate([joined[-1], weights], axis=1)
        else:
            joined.append(weights)
    return joined


def widths_of(plan: Plan) -> list[str]:
    return [WIDTHS[row["width"]] for row in plan.matrices]


def test_files_with_steps_become_codes_of_the_same_numbers(files: Files) -> None:
    coded, plain = make_plan(files["compact"]), make_plan(files["plain"])
    assert widths_of(coded).count("INT8") >= len(coded.matrices) - 1  # relations among boxes stay as they are
    assert set(widths_of(plain)) == {"FLOAT32"}
    for one, other in zip(matrices_of(coded), matrices_of(plain), strict=True):
        np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def test_captions_of_codes(files: Files) -> None:
    decoding = Decoding(beam=2, max_length=5)
    found, expected = (
        NumpyPath(make_plan(files[name])).search(inputs_of(files[name]), decoding) for name in ("compact", "plain")
    )
    for some, others in zip(found, expected, strict=True):
        assert [one.tokens for one in some] == [one.tokens for one in others]
        np.testing.assert_allclose([one.score for one in some], [one.score for one in others], rtol=1e-5)


def test_bfloat16_rounds_what_is_no_code(files: Files) -> None:
    rounded = make_plan(files["exact"], width="bfloat16")
    assert widths_of(rounded).count("BFLOAT16") >= len(rounded.matrices) - 1
    for one, other in zip(matrices_of(rounded), matrices_of(make_plan(files["exact"])), strict=True):
        np.testing.assert_allclose(one, other, rtol=2**-8)
    assert make_plan(files["compact"], width="bfloat16").data.tobytes() == make_plan(files["compact"]).data.tobytes()


def test_step_of_a_tensor(files: Files) -> None:
    packed = files["compact"]
    assert packed.steps
    assert {name: packed.step(name) for name in packed.steps} == packed.steps
    assert not any(files["exact"].step(name) for name in files["exact"])
