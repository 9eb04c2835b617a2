"""The schedule of a search: UPop's golden values, and where it ends."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.compress.structured.progress import check_search, ratio_at, ratio_on_paper, updates_at, usual_interval
from laconic.errors import PruningError


@pytest.fixture
def schedule(golden):
    return json.loads((golden / "upop" / "schedule.json").read_text())


def test_golden_ratios(schedule):
    for case in schedule["cases"]:
        ratio, steps = case["p"], case["T"]
        for step, code, paper in zip(case["step"], case["p_t_code"], case["p_t_paper"], strict=True):
            assert ratio_at(step, steps, ratio) == pytest.approx(code, abs=1e-12)
            assert ratio_on_paper(step, steps, ratio) == pytest.approx(paper, abs=1e-12)


def test_golden_steps_of_updates(schedule):
    for case in schedule["update_steps"]:
        first = not case["skip_step0"]
        found = [step for step in range(case["T"]) if updates_at(step, case["T"], case["interval"], first)]
        assert found == case["update_steps"]


@given(st.floats(0.01, 0.99), st.integers(1, 300))
def test_both_forms_rise_to_the_ratio(ratio, steps):
    for form in (ratio_at, ratio_on_paper):
        along = [form(step, steps, ratio) for step in range(steps)]
        assert along == sorted(along)
        assert along[-1] == pytest.approx(ratio, rel=1e-12)


def test_the_usual_interval_is_one_percent_of_compression():
    assert usual_interval(0.5, 10_000) == 200
    assert usual_interval(0.07, 700) == 100
    assert usual_interval(0.5, 20) == 1


@pytest.mark.parametrize(
    ("ratio", "steps", "interval"), [(0, 10, 0), (1, 10, 0), (float("nan"), 10, 0), (0.5, 0, 0), (0.5, 10, -1)]
)
def test_numbers_that_no_search_can_have(ratio, steps, interval):
    with pytest.raises(PruningError, match="give"):
        check_search(ratio, steps, interval)
