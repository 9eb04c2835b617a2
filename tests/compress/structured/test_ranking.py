"""Rankings: the published one value for value, and ours with its budget."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.compress.structured.progress import ratio_at
from laconic.compress.structured.ranking import choose, published_choice, z_scores
from laconic.errors import PruningError


def read(golden, name):
    return json.loads((golden / "upop" / f"{name}.json").read_text())


def of_kinds(attention, feed_forward):
    """Scores and kinds by group, attention first as in the golden values."""
    scores = {name: torch.tensor(row, dtype=torch.float64) for name, row in {**attention, **feed_forward}.items()}
    return scores, {name: "attention" if name in attention else "feed_forward" for name in scores}


def flags(keep):
    return {name: mask.int().tolist() for name, mask in keep.items()}


# As published


def test_golden_z_scores_and_their_order(golden):
    values = read(golden, "unified_ranking")
    scores, kinds = of_kinds(values["accumulated_grad_attn"], values["accumulated_grad_mlp"])
    flat = torch.cat(list(z_scores(scores, kinds).values()))
    assert flat.tolist() == pytest.approx(values["z_attn"] + values["z_mlp"], abs=1e-9)
    assert flat.sort(descending=True, stable=True).indices.tolist() == values["descending_order"]


def test_golden_unified_ranking(golden):
    values = read(golden, "unified_ranking")
    scores, kinds = of_kinds(values["accumulated_grad_attn"], values["accumulated_grad_mlp"])
    z = z_scores(scores, kinds)
    assert len(values["cases"]) == 15
    for case in values["cases"]:
        weights = {"attention": case["w_attn"], "feed_forward": case["w_mlp"]}
        keep = published_choice(z, kinds, case["p_t"], weights)
        assert flags(keep) == case["keep"]
        gone = sum(weights[kinds[name]] * int((~mask).sum()) for name, mask in keep.items())
        total = sum(weights[kinds[name]] * len(mask) for name, mask in keep.items())
        assert gone / total == pytest.approx(case["pruned_weight_fraction"], abs=1e-9)


def test_golden_penalty_changes_nothing(golden):
    """An L1 term adds one constant to all gradients of a kind, which z-scores take out again."""
    values = read(golden, "unified_ranking")
    scores, kinds = of_kinds(values["accumulated_grad_attn"], values["accumulated_grad_mlp"])
    for case in read(golden, "edge_cases")["l1_noop"]["results"]:
        added = {"attention": case["constant_added_attn"], "feed_forward": case["constant_added_mlp"]}
        moved = {name: score + added[kinds[name]] for name, score in scores.items()}
        keep = published_choice(z_scores(moved, kinds), kinds, 0.5, {"attention": 36, "feed_forward": 1})
        assert flags(keep) == case["keep"]


def test_golden_survivors(golden):
    case = read(golden, "edge_cases")["survivor_guard"]
    scores, kinds = of_kinds(case["attn"], case["mlp"])
    weights = {"attention": case["w_attn"], "feed_forward": case["w_mlp"]}
    assert flags(published_choice(z_scores(scores, kinds), kinds, case["p_t"], weights)) == case["keep"]


def test_golden_unit_at_the_threshold_stays(golden):
    case = read(golden, "edge_cases")["boundary_unit_is_kept"]
    scores, kinds = of_kinds({"a.0": case["attn"]}, {"m.0": case["mlp"]})
    z = z_scores(scores, kinds)
    published = published_choice(z, kinds, case["p_t"], {"attention": case["w"], "feed_forward": case["w"]})
    assert flags(published) == case["keep"]
    assert sum(int((~mask).sum()) for mask in published.values()) == case["really_pruned"] < case["asked_weight"]
    ours = choose(z, {"a.0": 1, "m.0": 1}, case["asked_weight"])
    assert sum(int((~mask).sum()) for mask in ours.values()) == case["asked_weight"]


def test_golden_nan(golden):
    scores = {"a": torch.tensor([1.0, float("nan"), 0.0, 2.0])}
    z = z_scores(scores, {"a": "attention"})
    keep = published_choice(z, {"a": "attention"}, 0.5, {"attention": 12, "feed_forward": 1})
    assert keep["a"].int().tolist() == read(golden, "nan")["keep"]
    with pytest.raises(PruningError, match="not numbers"):
        choose(z, {"a": 1}, 2.0)


def test_golden_searches(golden):
    """Four whole searches, gradients summed over all steps or, by mistake, of the last step alone."""
    values = read(golden, "toy_search")
    for run, flips in zip(values["runs"], values["flips_at_last_update"], strict=True):
        slopes, kinds = of_kinds(run["c_attn"], run["c_mlp"])
        masks = {name: torch.ones_like(slope) for name, slope in slopes.items()}
        sums = {name: torch.zeros_like(slope) for name, slope in slopes.items()}
        updates = {update["step"]: update for update in run["updates"]}
        keep = {}
        for step in range(run["T"]):
            for name, slope in slopes.items():
                gradient = slope * masks[name] + torch.tensor(run["noise"][name][step], dtype=torch.float64)
                sums[name] = gradient + (sums[name] if run["accumulate"] else 0)
            if step not in updates:
                continue
            ratio = ratio_at(step, run["T"], run["p"])
            weights = {"attention": run["w_attn"], "feed_forward": run["w_mlp"]}
            before, keep = keep, published_choice(z_scores(sums, kinds), kinds, ratio, weights)
            masks = {name: mask + (1 - ratio / run["p"]) * (~mask).double() for name, mask in keep.items()}
            assert ratio == pytest.approx(updates[step]["p_t"], abs=1e-9)
            assert flags(keep) == updates[step]["keep"]
            for name in slopes:
                assert sums[name].tolist() == pytest.approx(updates[step]["accumulated"][name], abs=1e-9)
                assert masks[name].tolist() == pytest.approx(updates[step]["alpha"][name], abs=1e-9)
        assert sum(int((before[name] != keep[name]).sum()) for name in keep) == flips


# Ours

SCORES = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=12)
MODELS = st.lists(st.tuples(SCORES, st.integers(1, 40)), min_size=1, max_size=6)


def cut(model):
    scores = {str(index): torch.tensor(row, dtype=torch.float64) for index, (row, _) in enumerate(model)}
    return scores, {str(index): cost for index, (_, cost) in enumerate(model)}


@given(MODELS, st.floats(0.01, 0.99), st.integers(0, 1))
def test_the_target_is_met_within_one_unit(model, ratio, least):
    scores, costs = cut(model)
    target = ratio * sum(costs[name] * len(score) for name, score in scores.items())
    keep = choose(scores, costs, target, least=least)
    gone = sum(costs[name] * int((~mask).sum()) for name, mask in keep.items())
    most = sum(costs[name] * (len(score) - least) for name, score in scores.items())
    assert all(int(mask.sum()) >= least for mask in keep.values())
    assert abs(gone - min(target, most)) < max(costs.values()) or gone == most


@given(MODELS, st.floats(0.01, 0.99))
def test_within_a_group_the_highest_go(model, ratio):
    scores, costs = cut(model)
    target = ratio * sum(costs[name] * len(score) for name, score in scores.items())
    for name, mask in choose(scores, costs, target).items():
        if not bool(mask.all()):
            assert scores[name][mask].max() <= scores[name][~mask].min()


def test_ties_are_settled_by_order():
    keep = choose({"first": torch.zeros(4), "second": torch.zeros(4)}, {"first": 1, "second": 1}, 5.0)
    assert keep["first"].tolist() == [False, False, False, True]
    assert keep["second"].tolist() == [False, False, True, True]


def test_a_unit_too_dear_is_passed_over_for_a_cheaper_one():
    keep = choose(
        {"dear": torch.tensor([9.0, 0.0]), "cheap": torch.tensor([1.0, 0.5, 0.0])}, {"dear": 24, "cheap": 1}, 2
    )
    assert keep["dear"].all()
    assert keep["cheap"].tolist() == [False, False, True]


def test_equal_scores_of_a_kind_are_zero():
    z = z_scores({"a": torch.full((3,), 7.0), "b": torch.tensor([5.0])}, {"a": "attention", "b": "feed_forward"})
    assert z["a"].tolist() == [0, 0, 0]
    assert z["b"].tolist() == [0]


def test_z_scores_do_not_mix_kinds():
    kinds = {"a": "attention", "b": "attention", "f": "feed_forward"}
    scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0]), "f": torch.tensor([1e6, 2e6, 3e6])}
    z = z_scores(scores, kinds)
    assert torch.cat([z["a"], z["b"]]).tolist() == pytest.approx([-1, 0, 1])
    assert z["f"].tolist() == pytest.approx([-1, 0, 1])
