"""Run folders of earlier versions: read in today's form, and known as finished by today's recipes."""

import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from laconic.config import from_mapping
from laconic.errors import TrainingError
from laconic.recipes.folders import claim, finished, read_recipe
from laconic.recipes.methods import METHODS, method_class
from laconic.recipes.older import DEFAULTS, in_todays_form, is_old
from laconic.recipes.recipe import Pruning, Recipe
from laconic.recipes.study import read_study

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(ROOT.glob("results/*/runs/*/recipe.json"))
FLAT = {**DEFAULTS, "sparsity": 0.0, "start": None, "end": None, "interval": None, "where": "decoder", "freeze": "none"}


@pytest.mark.parametrize(
    ("flat", "today"),
    [
        ({"method": "none"}, Pruning()),
        ({"method": "supermask", "sparsity": 0.9}, Pruning("supermask", options={"sparsity": 0.9})),
        (
            {"method": "gradual", "sparsity": 0.5, "scope": "uniform", "start": 4, "end": 9, "where": "all"},
            Pruning(
                "gradual", "all", options={"sparsity": 0.5, "scope": "uniform", "schedule": {"start": 4, "end": 9}}
            ),
        ),
        ({"method": "frozen", "ticket": "runs/a"}, Pruning("frozen", options={"ticket": "runs/a"})),
        ({"method": "snip", "sparsity": 0.5, "batches": 3}, Pruning("snip", options={"sparsity": 0.5, "batches": 3})),
    ],
)
def test_flat_options_find_their_place(flat, today):
    for held in ({**FLAT, **flat}, flat):  # as version 0.1 has written it, and one that lacked keys
        recipe = {"pruning": held, "training": {"seed": 3}}
        translated = in_todays_form(recipe)
        assert from_mapping(translated["pruning"], Pruning, "") == today
        assert translated["training"] == {"seed": 3}
        assert in_todays_form(translated) == translated
        assert recipe["pruning"] is held


def test_the_form_of_today_is_left_alone():
    for recipe in ({}, {"pruning": {"method": "none"}}, {"pruning": {"method": "snip", "options": {"batches": 1}}}):
        assert not is_old(recipe)
        assert in_todays_form(recipe) == recipe


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_then_are_those_of_now(method):
    """Else the translation, which leaves them out, would change what an old run means."""
    for field in fields(method_class(method)):
        if field.name in DEFAULTS and field.default is not MISSING:
            assert field.default == DEFAULTS[field.name], field.name


def test_a_default_spelled_out_is_no_other_setting(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({"pruning": {**FLAT, "method": "supermask", "sparsity": 0.9}}))
    (tmp_path / "log.jsonl").touch()
    said = Recipe(pruning=Pruning("supermask", options={"sparsity": 0.9, "init": 5.0, "pace": None}))
    assert finished(tmp_path, said) is None
    other = Recipe(pruning=Pruning("supermask", options={"sparsity": 0.9, "init": 2.0}))
    with (
        pytest.raises(TrainingError, match=r"other settings \(pruning\.options\.init: None -> 2\.0\)"),
        claim(tmp_path, other, resume=True),
    ):
        pass


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parts[-4]}-{path.parts[-2]}")
def test_committed_runs_can_be_read(path):
    assert read_recipe(path.parent).training.epochs > 0


@pytest.mark.parametrize("study", sorted({path.parts[-4] for path in COMMITTED}))
def test_committed_runs_are_those_of_the_studies_of_today(study, tmp_path):
    """`laconic study --check` finds them finished."""
    folder = Path("runs") / study  # what their recipes call it
    runs = {run.name: run for run in read_study(ROOT / "recipes" / "studies" / f"{study}.toml", folder)}
    for path in ROOT.glob(f"results/{study}/runs/*/recipe.json"):
        assert finished(path.parent, runs[path.parent.name].recipe) is not None, path.parent.name
