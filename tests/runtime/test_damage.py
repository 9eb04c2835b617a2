"""A damaged plan is an error of laconic that names it, where numpy runs it as well."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from laconic.decode.search import Decoding
from laconic.errors import FormatError, LaconicError
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.plan import Plan

NATIVE = Path(__file__).parents[1] / "native"
SMALL, MUTATIONS = (runpy.run_path(str(NATIVE / name)) for name in ("small_plans.py", "mutations.py"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numpy_names_the_plan(tmp_path):
    sound = [Plan.read(path) for path in list(SMALL["save_plans"](tmp_path))[:5]]
    refused = 0
    for number in range(120):
        rng = np.random.default_rng(number)
        damage = MUTATIONS[("changed_arguments", "swapped_operations", "changed_weights")[number % 3]]
        plan = Plan.of(damage(sound[number % len(sound)], rng))
        try:
            NumpyPath(plan, "strange.plan").search(MUTATIONS["images_for"](plan, rng), Decoding(beam=2, max_length=3))
        except FormatError as error:
            assert str(error).startswith("strange.plan: ")  # noqa: PT017 - other errors are let through
            refused += 1
        except LaconicError:
            continue
    assert 12 < refused < 108
