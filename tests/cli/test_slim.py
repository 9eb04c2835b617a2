"""`laconic slim` on a folder, and `laconic train` on a recipe with a task."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from laconic.cli import main
from laconic.recipes import kinds
from laconic.tasks.settings import Search, SlimRecipe, Stage

RECIPE = """task = "classify"
[data]
name = "class_folders"
root = "photos"
[slim]
method = "taylor"
ratio = 0.3
interval = 7
[search]
epochs = 2
learning_rate = 1e-4
[training]
epochs = 9
batch = 8
"""
RESULT = {
    "selection": "accuracy",
    "scores": {"accuracy": 91.5},
    "dense": {"accuracy": 92.0},
    "baselines": {"chance": 20.0},
    "parameters": {"dense": 1000, "now": 600},
    "macs": {"dense": 2000, "now": 1100},
    "seconds": {"search": 3.0, "training": 90.0},
    "skipped": ["[x].jpg: truncated"],
}
SLIM = "slim my_vit --task classify --data class_folders --root photos"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[SlimRecipe, Path, bool]]:
    found: list[tuple[SlimRecipe, Path, bool]] = []

    def carry_out(recipe: Any, folder: Path, cache: Path, *, resume: bool, watch: Any) -> dict[str, Any]:
        found.append((recipe, folder, resume))
        return RESULT

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kinds, "carry_out_recipe", carry_out)
    (tmp_path / "r.toml").write_text(RECIPE)
    return found


def test_a_folder_is_slimmed_as_the_options_say(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SLIM.split(), "--ratio", "0.4", "--epochs", "3", "--distil", "-o", "out"]) == 0
    recipe, folder, resume = calls[0]
    assert (folder, resume) == (Path("out"), False)
    assert (recipe.model.initial, recipe.data.name, recipe.data.root) == ("my_vit", "class_folders", "photos")
    assert (recipe.slim.method, recipe.slim.ratio) == ("upop", 0.4)
    assert (recipe.search.epochs, recipe.training.epochs, recipe.dense) == (5, 3, Stage())
    assert recipe.distillation.teacher == "dense"
    shown = capsys.readouterr().out
    for text in ("92.00", "91.50", "accuracy, chance", "600 (60.0%)", "1.5 min", "[x].jpg: truncated", "out/model"):
        assert text in shown


def test_options_that_are_not_given_leave_the_recipe_as_it_is(calls: list[Any]) -> None:
    assert main([*SLIM.split(), "--recipe", "r.toml", "--batch", "4"]) == 0
    recipe, folder, _ = calls[0]
    assert folder == Path("runs/my_vit")
    assert (recipe.slim.method, recipe.slim.ratio, recipe.slim.interval) == ("taylor", 0.3, 7)
    assert recipe.search == Search(2, 1e-4)
    assert (recipe.training.epochs, recipe.training.batch) == (9, 4)


def test_a_recipe_with_a_task_is_trained(calls: list[Any]) -> None:
    assert main(["train", "r.toml", "--slim.ratio", "0.6", "--training.seed", "4", "--resume"]) == 0
    recipe, folder, resume = calls[0]
    assert (folder, resume) == (Path("runs/r"), True)
    assert (recipe.task, recipe.slim.method, recipe.slim.ratio) == ("classify", "taylor", 0.6)
    assert recipe == replace(
        recipe, search=Search(2, 1e-4), training=replace(recipe.training, epochs=9, batch=8, seed=4)
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f"{SLIM} --ratio 1.5", "slim.ratio = 1.5"),
        (f"{SLIM} --method smp", "invalid choice"),
        (f"{SLIM} --method published --multiple 8", "ranks as published"),
        (f"{SLIM} --recipe nowhere.toml", "nowhere.toml: no such file"),
        ("slim my_vit --task vqa --data scenes --root x --recipe r.toml", "has task 'classify'"),
        ("slim my_vit --task paint --data scenes --root x", "invalid choice"),
        ("train r.toml --search.epochs 0", "needs a search"),
    ],
)
def test_wrong_use_is_one_line(calls: list[Any], capsys: pytest.CaptureFixture[str], line: str, says: str) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("laconic: ")
    assert said.count("\n") == 1
    assert not calls


def test_a_folder_that_is_none_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            (tmp_path / "photos" / split / name / "x.jpg").touch()
    assert main(SLIM.split()) == 2
    said = capsys.readouterr().err
    assert "my_vit: no config.json in it" in said
    assert said.count("\n") == 1
