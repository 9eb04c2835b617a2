"""Every instruction set gives the same captions, in a workspace of the same size."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from laconic.decode.search import Decoding
from laconic.native.library import library
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.plan import Plan

SMALL = runpy.run_path(str(Path(__file__).with_name("small_plans.py")))
pytestmark = pytest.mark.skipif(library() is None, reason="there is no native library")


@pytest.fixture
def levels() -> Iterator[list[bytes]]:
    """Those that this processor has; afterwards it is as before."""
    native = library()
    before = native.laconic_level()
    yield [level for level in (b"native", b"x86-64-v2", b"x86-64-v3", b"x86-64-v4") if native.laconic_use(level)]
    native.laconic_use(before)


def images_for(plan: Plan) -> Inputs:
    random, side, counts = np.random.default_rng(2), int(plan.header["side"]), np.array([3, 7, 1], np.uint32)
    if side:
        return Inputs(pixels=random.integers(0, 256, (3, side, side, 3), np.uint8))
    corners = np.sort(random.random((11, 2, 2), np.float32), axis=1).reshape(11, 4)
    return Inputs(None, random.standard_normal((11, int(plan.header["channels"])), np.float32), counts, corners)


def test_captions_do_not_depend_on_the_processor(levels, tmp_path):
    for file in SMALL["save_plans"](tmp_path):
        path, found, sizes = NativePath(Plan.read(file)), [], set()
        for level in levels:
            library().laconic_use(level)
            for beam in (1, 3, 17):
                decoding = Decoding(beam=beam, max_length=6)
                sizes.add((beam, path.workspace_bytes(3, 7, decoding)))
                found.append(path.search(images_for(path.plan), decoding))
        assert len(sizes) == 3
        for number, ours in enumerate(found[3:]):
            for image, wanted in zip(ours, found[number % 3], strict=True):
                assert [h.tokens for h in image] == [h.tokens for h in wanted], file.name
                np.testing.assert_allclose([h.score for h in image], [h.score for h in wanted], atol=1e-4)
