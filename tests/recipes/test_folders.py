"""Who may train in the folder of a run, what is finished, and which runs are tickets of others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from laconic.config import to_mapping
from laconic.errors import ConfigError, TrainingError
from laconic.recipes import folders
from laconic.recipes.folders import LOCK, check_ticket, claim, sole_writer
from laconic.recipes.recipe import DataRecipe, Pruning, Recipe
from laconic.spec.model import DecoderConfig
from laconic.training.settings import Training

DENSE = Recipe(data=DataRecipe("scenes"), decoder=DecoderConfig(options={"word": 12}), training=Training(epochs=3))


def take(folder: Path, recipe: Recipe, resume: bool = False) -> None:
    """Claims the folder, writes what belongs to the claim and trains nothing."""
    with claim(folder, recipe, resume):
        pass


def test_resume_of_nothing_starts(tmp_path):
    with claim(tmp_path / "fresh", DENSE, resume=True) as done:
        assert done is None
    assert json.loads((tmp_path / "fresh" / "recipe.json").read_text())["data"]["name"] == "scenes"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "[" * 100_000])
@pytest.mark.parametrize("name", ["recipe.json", "result.json"])
def test_a_damaged_folder_is_named(name, text, tmp_path):
    take(tmp_path, DENSE)
    (tmp_path / "log.jsonl").touch()
    (tmp_path / name).write_text(text)
    said = "other settings" if (name, text) == ("recipe.json", "{}") else "damaged run"
    with pytest.raises(TrainingError, match=f"{said} .*; delete it, or give --out another folder"):
        take(tmp_path, DENSE, resume=True)


def test_a_run_that_has_trained_nothing_holds_no_folder(tmp_path):
    other = replace(DENSE, training=replace(DENSE.training, epochs=9))
    take(tmp_path, other)
    with claim(tmp_path, other, resume=False), pytest.raises(TrainingError, match="other settings"):
        take(tmp_path, DENSE)
    with claim(tmp_path, other, resume=False), pytest.raises(TrainingError, match="another process trains in it"):
        take(tmp_path, other)
    assert folders.finished(tmp_path, DENSE) is None
    assert json.loads((tmp_path / "recipe.json").read_text()) == to_mapping(other)  # looking takes nothing
    take(tmp_path, DENSE)
    assert json.loads((tmp_path / "recipe.json").read_text()) == to_mapping(DENSE)
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(TrainingError, match="other settings"):
        take(tmp_path, other, resume=True)


def test_a_file_may_be_named_from_the_root_or_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    take(tmp_path / "run", replace(DENSE, initial="runs/dense/model.safetensors"))
    (tmp_path / "run/log.jsonl").touch()
    take(tmp_path / "run", replace(DENSE, initial=str(tmp_path / "runs/dense/model.safetensors")), resume=True)
    with pytest.raises(TrainingError, match=r"other settings.*initial"):
        take(tmp_path / "run", replace(DENSE, initial=str(tmp_path / "runs/other/model.safetensors")), resume=True)


def test_of_two_that_claim_a_folder_at_once_the_second_sees_what_the_first_wrote(tmp_path, monkeypatch):
    """Another process comes and trains between the first look and the lock."""
    other = replace(DENSE, training=replace(DENSE.training, epochs=9))
    original = folders.sole_writer

    def late(folder):
        monkeypatch.setattr(folders, "sole_writer", original)
        take(folder, other)
        (folder / "log.jsonl").touch()
        return original(folder)

    monkeypatch.setattr(folders, "sole_writer", late)
    with pytest.raises(TrainingError, match="other settings"):
        take(tmp_path, DENSE)
    assert json.loads((tmp_path / "recipe.json").read_text()) == to_mapping(other)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        take(tmp_path / "file" / "run", DENSE)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with (
        sole_writer(tmp_path),
        pytest.raises(TrainingError, match="another process trains in it"),
        sole_writer(tmp_path),
    ):
        pass
    with sole_writer(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_a_ticket_is_of_a_finished_run_of_the_same_model(tmp_path):
    ticket = tmp_path / "ticket"
    take(ticket, DENSE)
    (ticket / "result.json").write_text("{}")
    (ticket / "model.safetensors").touch()
    recipe = replace(DENSE, pruning=Pruning("lottery", options={"sparsity": 0.6, "ticket": str(ticket)}))
    held = to_mapping(DENSE)
    del held["initial"], held["data"]["regions"], held["encoder"]["channels"]  # as of an older version
    (ticket / "recipe.json").write_text(json.dumps(held))
    check_ticket(ticket, recipe)
    check_ticket(ticket, replace(recipe, decoder=DecoderConfig(options={"word": 12, "dropout": 0.3, "cell": "lstm"})))
    with pytest.raises(ConfigError, match=r"training\.seed: 1 -> 5; a ticket fits its own model"):
        check_ticket(ticket, replace(recipe, training=replace(recipe.training, seed=5)))
    with pytest.raises(ConfigError, match=r"decoder\.options\.word: 12 -> 13; a ticket fits"):
        check_ticket(ticket, replace(recipe, decoder=DecoderConfig(options={"word": 13})))
    (ticket / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"ticket: no finished run \(it has no result\.json\)"):
        check_ticket(ticket, recipe)
    (ticket / "result.json").write_text("{}")
    for damaged in ("[]", "[" * 100_000):
        (ticket / "recipe.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"ticket: damaged run .*; train the ticket's run again"):
            check_ticket(ticket, recipe)
