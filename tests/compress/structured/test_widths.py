"""Widths in multiples, with the budget repaired."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.compress.structured.ranking import choose
from laconic.compress.structured.widths import allowed_widths, round_widths

SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=5)


@given(SIZES, st.sampled_from([2, 4, 8]), st.floats(0.05, 0.95), st.integers(0, 1), st.integers(0, 2**31))
def test_widths_are_multiples_and_the_budget_holds_within_a_block(model, multiple, ratio, least, seed):
    noise = torch.Generator().manual_seed(seed)
    scores = {str(index): torch.randn(size, generator=noise) for index, (size, _) in enumerate(model)}
    costs = {str(index): cost for index, (_, cost) in enumerate(model)}
    total = sum(costs[name] * len(score) for name, score in scores.items())
    keep = choose(scores, costs, ratio * total, least=least)
    rounded = round_widths(scores, costs, keep, multiple, ratio * total, least=least)
    assert list(rounded) == list(keep)
    for name, mask in rounded.items():
        width, size = int(mask.sum()), len(mask)
        assert width >= least
        assert width % multiple == 0 or width == size or (width == least and size <= multiple)
        if 0 < width < size:
            assert scores[name][mask].max() <= scores[name][~mask].min()
    gone = total - sum(costs[name] * int(mask.sum()) for name, mask in rounded.items())
    most = total - sum(costs[name] * allowed_widths(len(scores[name]), multiple, least)[0] for name in scores)
    block = multiple * max(costs.values())
    assert abs(gone - ratio * total) <= block or gone == most < ratio * total


def test_the_budget_is_repaired_where_it_costs_least():
    """Both groups round down to 8, which is 4 units too few; the better of the two edges comes back."""
    scores = {"a": torch.arange(24.0), "b": torch.arange(24.0) / 2}
    keep = {name: torch.arange(24) < 11 for name in scores}
    rounded = round_widths(scores, {"a": 1, "b": 1}, keep, 8, 24.0)
    assert {name: int(mask.sum()) for name, mask in rounded.items()} == {"a": 8, "b": 16}


def test_small_groups_keep_one_unit():
    keep = {"a": torch.tensor([True, False, False])}
    assert int(round_widths({"a": torch.arange(3.0)}, {"a": 1}, keep, 8, 2.0)["a"].sum()) == 1


@pytest.mark.parametrize(
    ("size", "multiple", "least", "allowed"),
    [(20, 8, 1, [8, 16, 20]), (20, 8, 0, [0, 8, 16, 20]), (5, 8, 1, [1, 5]), (5, 8, 0, [0, 5]), (8, 8, 1, [1, 8])],
)
def test_allowed_widths(size, multiple, least, allowed):
    assert allowed_widths(size, multiple, least) == allowed
