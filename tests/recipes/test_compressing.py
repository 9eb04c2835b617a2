"""From a trained captioner to a size or a score: predicted bytes, stages, what is chosen, and going on after a stop."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from laconic import store
from laconic.captioner.packing import load
from laconic.cli import main
from laconic.cli.compress import share_of, size_of
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, TrainingError
from laconic.recipes import choosing, compressing
from laconic.recipes.choosing import Candidate, choose
from laconic.recipes.compressing import Aim, Stages, compress, stage_recipe
from laconic.recipes.file_sizes import predicted_bytes
from laconic.recipes.recipe import DataRecipe, Recipe
from laconic.recipes.run import run_recipe
from laconic.spec.model import DecoderConfig, EncoderConfig
from laconic.training.settings import Training

DENSE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=24, val=4),
    encoder=EncoderConfig("toy", size=32, stride=16),
    decoder=DecoderConfig(options={"word": 32, "hidden": 48}),
    training=Training(
        epochs=1, batch=8, learning_rate=5e-3, encoder_learning_rate=1e-3, precision="float32", mirror=False, warmup=1
    ),
    decoding=Decoding(beam=1),
)
SHORT = Stages(epochs=1)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    run_recipe(DENSE, folder / "run", folder / "cache")
    return folder / "run"


# Stages


def test_a_stage_prunes_quantises_and_distils_from_the_dense_captioner(dense: Path) -> None:
    model = dense / "model.safetensors"
    recipe = stage_recipe(DENSE, SHORT, sparsity=0.8, initial=model, teacher=model, epochs=2)
    assert (recipe.pruning.method, recipe.pruning.where, recipe.pruning.options) == ("fisher", "all", {"sparsity": 0.8})
    assert recipe.distillation.teacher == recipe.initial == str(model)
    assert (recipe.quantization.bits, recipe.quantization.where) == (4, "all")
    assert (recipe.training.epochs, recipe.training.encoder_learning_rate) == (2, SHORT.encoder_learning_rate)


@pytest.mark.parametrize("key", ["inherit", "encoder_from", "initial"])
def test_a_stage_begins_with_the_dense_captioner_whatever_that_began_with(key: str) -> None:
    dense = replace(DENSE, **{key: "earlier.safetensors"})
    recipe = stage_recipe(dense, SHORT, sparsity=0.8, initial=Path("a"), teacher=Path("a"), epochs=1)
    assert (recipe.initial, recipe.inherit, recipe.encoder_from) == ("a", "", "")


@pytest.mark.parametrize(
    "wrong", [{"bits": 9}, {"bits": 0}, {"learning_rate": -1.0}, {"encoder_learning_rate": 0.0}, {"epochs": 0}]
)
def test_a_stage_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"compress.*{next(iter(wrong))}"):
        Stages(**wrong)


def test_a_file_that_cannot_be_written_leaves_the_one_before(dense: Path, tmp_path: Path) -> None:
    budget = predicted_bytes(load(dense / "model.safetensors"), 0.6, 4)
    out = tmp_path / "out"
    (out / "model.safetensors").mkdir(parents=True)
    with pytest.raises(TrainingError, match="cannot be written"):
        compress(dense, Aim(budget=budget), out, tmp_path / "cache", stages=SHORT)
    assert not (out / "compressed.json").exists()


def test_a_folder_that_cannot_be_made_is_found_before_anything_is_computed(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "run_recipe", lambda *_, **__: pytest.fail("a stage was begun"))
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(TrainingError, match=r"file/out: cannot be written.*give --out another"):
        compress(dense, Aim(budget=10**6), out, tmp_path / "cache", stages=SHORT)
    with pytest.raises(TrainingError, match="cannot be written"):
        choose([Candidate(dense, 4)], Aim(budget=10**6), out, tmp_path / "cache", stages=SHORT)


def test_a_budget_is_met_by_the_file_itself(dense: Path, tmp_path: Path) -> None:
    captioner = load(dense / "model.safetensors")
    budget = predicted_bytes(captioner, 0.6, 4)
    found = compress(dense, Aim(budget=budget), tmp_path / "out", tmp_path / "cache", stages=SHORT)
    file = tmp_path / "out" / "model.safetensors"
    assert file.stat().st_size == found.chosen.bytes <= budget
    assert store.inspect(file).sparsity > 0.3
    told = json.loads((tmp_path / "out" / "compressed.json").read_text())
    assert told["chosen"]["bytes"] == found.chosen.bytes
    again = compress(dense, Aim(budget=budget), tmp_path / "out", tmp_path / "cache", stages=SHORT)
    assert again == found


class Carried:
    """Stands for `run_recipe`: what a stage comes to follows from its sparsity alone."""

    def __init__(self, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.size, self.recipes = size, list[Recipe]()
        monkeypatch.setattr(compressing, "run_recipe", self)

    def bytes_at(self, sparsity: float) -> float:
        return self.size * (1 - sparsity)

    def __call__(self, recipe: Recipe, folder: Path, cache: Path, **_: Any) -> dict[str, Any]:
        self.recipes.append(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        sparsity = recipe.pruning.options["sparsity"]
        (folder / "model.safetensors").write_text(folder.name)
        return {"bytes": int(self.bytes_at(sparsity)), "scores": {"CIDEr": 1 - sparsity**4}}


def test_a_file_that_is_too_large_is_pruned_further(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = load(dense / "model.safetensors")
    budget = predicted_bytes(captioner, 0.5, 4)
    carried = Carried(3 * budget, monkeypatch)  # larger than predicted
    found = compress(dense, Aim(budget=budget), tmp_path, tmp_path / "cache", stages=Stages(epochs=4, measured=0))
    assert [made.good for made in found.made] == [False, True]
    assert found.chosen == found.made[-1]
    assert [recipe.training.epochs for recipe in carried.recipes] == [4, 2]
    assert carried.recipes[1].initial == str(tmp_path / "stage1" / "model.safetensors")
    assert {recipe.distillation.teacher for recipe in carried.recipes} == {str(dense / "model.safetensors")}
    carried.size = 1e9
    with pytest.raises(TrainingError, match="after 3 stages"):
        compress(dense, Aim(budget=budget), tmp_path / "other", tmp_path / "cache")


@pytest.mark.parametrize("share", [0.6, 1.5])
def test_a_short_stage_measures_how_large_trained_files_are(
    share: float, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files have a share of the predicted size; after the measurement the budget is used up, by one whole stage."""
    captioner = load(dense / "model.safetensors")
    budget = predicted_bytes(captioner, 0.7, 4)
    carried = Carried(0.0, monkeypatch)
    monkeypatch.setattr(Carried, "bytes_at", lambda _, s: share * predicted_bytes(captioner, s, 4))
    found = compress(dense, Aim(budget=budget), tmp_path, tmp_path / "cache", stages=Stages(epochs=4))
    assert [recipe.training.epochs for recipe in carried.recipes] == [1, 4]
    assert carried.recipes[1].initial == str(dense / "model.safetensors")
    assert 0.94 * budget < found.chosen.bytes <= budget
    assert (found.made, (tmp_path / "model.safetensors").read_text()) == ((found.chosen,), "stage1")


def test_the_last_stage_that_keeps_enough_is_chosen(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Carried(1e6, monkeypatch)
    run = scored(dense, tmp_path / "run", 1.0)
    found = compress(run, Aim(keep=0.5), tmp_path, tmp_path / "cache")
    assert [round(made.sparsity, 3) for made in found.made] == [0.6, 0.76, 0.856]
    assert [made.good for made in found.made] == [True, True, False]
    assert (found.chosen.name, (tmp_path / "model.safetensors").read_text()) == ("stage2", "stage2")
    with pytest.raises(TrainingError, match=r"99\.0% was to be kept"):
        compress(run, Aim(keep=0.99), tmp_path / "other", tmp_path / "cache")
    with pytest.raises(ConfigError, match="nothing to keep"):
        compress(scored(dense, tmp_path / "mute", 0.0), Aim(keep=0.9), tmp_path / "other", tmp_path / "cache")


def scored(run: Path, copy: Path, score: float) -> Path:
    """The same run with another CIDEr."""
    shutil.copytree(run, copy)
    result = json.loads((run / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({**result, "scores": {**result["scores"], "CIDEr": score}}))
    return copy


# Wrong use


@pytest.mark.parametrize("options", [{}, {"budget": 1, "keep": 0.5}, {"budget": -1}, {"keep": 1.5}])
def test_aims_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="compress"):
        Aim(**options)


def test_runs_that_are_none(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no finished run of a captioner.*result\.json"):
        compress(tmp_path, Aim(keep=0.5), tmp_path / "out", tmp_path / "cache")
    for name in ("model.safetensors", "recipe.json"):
        (tmp_path / name).write_bytes((dense / name).read_bytes())
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="damaged run"):
        compress(tmp_path, Aim(keep=0.5), tmp_path / "out", tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "bytes_"), [("", 0), ("1MB", 10**6), ("1.3 mb", 1_300_000), ("900kB", 900_000), ("800000", 800_000)]
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size_of(text) == bytes_


@pytest.mark.parametrize(("text", "share"), [("", 0.0), ("98%", 0.98), ("0.5", 0.5), ("100 %", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert share_of(text) == share


@pytest.mark.parametrize(
    "words",
    [
        *(["--budget", size] for size in ("1 apple", "0MB", "0.5", "9" * 400)),
        *(["--keep", share] for share in ("120%", "x")),
    ],
)
def test_what_is_no_size_or_share_is_refused(words: list[str], dense: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", str(dense), *words]) == 2
    assert words[1] in capsys.readouterr().err


def test_the_command_shows_what_came_out(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = predicted_bytes(load(dense / "model.safetensors"), 0.5, 4)
    words = ["--budget", str(budget), "--epochs", "1", "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    assert main(["compress", str(dense), *words]) == 0
    said = capsys.readouterr().out
    assert "stage1" in said
    assert "laconic caption" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--bits", "9"], "9"), (["--trial-epochs", "0", "--bits", "3", "4"], "trial"), (["--threads", "-1"], "-1")],
)
def test_what_cannot_be_is_found_before_a_recipe_is_trained(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dense.toml").write_text('data = { name = "scenes", train = 8, val = 2 }\n')
    folder = ["-o", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main(["compress", str(tmp_path / "dense.toml"), "--keep", "90%", *words, *folder]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Choosing


def test_of_several_candidates_the_best_of_one_size_goes_on(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores follow from the sparsity alone, so the candidate that may keep most of its weights wins."""
    carried = Carried(1e6, monkeypatch)
    monkeypatch.setattr(choosing, "run_recipe", carried)
    aim = Aim(budget=predicted_bytes(load(dense / "model.safetensors"), 0.7, 4))
    candidates = [Candidate(dense, bits) for bits in (8, 2, 4)]
    trials = choose(candidates, aim, tmp_path, tmp_path / "cache", epochs=2)
    assert [trial.bits for trial in trials] == [2, 4, 8]
    assert trials[0].sparsity < trials[1].sparsity < trials[2].sparsity
    assert {recipe.training.epochs for recipe in carried.recipes} == {2}
    assert [recipe.quantization.bits for recipe in carried.recipes] == [8, 2, 4]
    told = json.loads((tmp_path / "choice.json").read_text())["trials"]
    assert [one["bits"] for one in told] == [2, 4, 8]
    kept = choose(candidates, Aim(keep=0.9), tmp_path, tmp_path / "cache")
    assert max(kept, key=lambda trial: trial.bits).sparsity == pytest.approx(SHORT.first, abs=0.03)


def test_candidates_that_cannot_be_told_apart(dense: Path, tmp_path: Path) -> None:
    for candidates in ([], [Candidate(dense, 4)] * 2):
        with pytest.raises(ConfigError, match="different names"):
            choose(candidates, Aim(keep=0.9), tmp_path, tmp_path)


def test_the_command_chooses_between_bits(dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = predicted_bytes(load(dense / "model.safetensors"), 0.5, 4)
    words = ["--budget", str(budget), "--epochs", "1", "--cache", str(tmp_path / "cache"), "-o", str(tmp_path / "out")]
    assert main(["compress", str(dense), "--bits", "3", "4", *words]) == 0
    said = capsys.readouterr().out
    assert "run_3bits" in said
    assert "run_4bits" in said
    assert json.loads((tmp_path / "out/compressed.json").read_text())["chosen"]["bytes"] <= budget
