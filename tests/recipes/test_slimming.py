"""Stages of a recipe that slims: hand-over, resuming, and what is refused. The task is a toy of coloured noise."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("transformers")

from transformers import ViTConfig, ViTForImageClassification

from laconic import hf
from laconic.cli.study import Study, study
from laconic.data import Skipped
from laconic.errors import ConfigError, PruningError, TrainingError
from laconic.recipes import slimming
from laconic.recipes.slimming import run_slim
from laconic.tasks import table
from laconic.tasks.settings import ModelRecipe, Search, Slim, SlimRecipe, Stage
from laconic.tasks.supply import Shuffled, moved
from laconic.tasks.task import Learner
from laconic.training.settings import Distillation, Training

CONFIG = ViTConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
    num_labels=3,
)  # fmt: skip


@dataclass(frozen=True)
class Batch:
    pixels: Tensor
    labels: Tensor

    @property
    def count(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Batch":
        return moved(self, device)


class Toy:
    """Which of three channels is brightest?"""

    selection = "accuracy"
    skipped = (Skipped("a.jpg", "a.jpg: truncated"),)

    def __init__(self, recipe: SlimRecipe, *_: Any) -> None:
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 3, 80)
        self.pixels = rng.normal(size=(80, 3, 8, 8)).astype(np.float32)
        self.pixels[np.arange(80), self.labels] += 0.5
        torch.manual_seed(recipe.training.seed)
        initial = recipe.model.initial
        self.net: Any = hf.from_pretrained(initial) if initial else ViTForImageClassification(CONFIG)
        self.batches = Shuffled(self.batch, np.arange(60), recipe.training.batch, recipe.training.seed)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> Batch:
        return Batch(torch.from_numpy(self.pixels[rows]), torch.from_numpy(self.labels[rows]))

    def outputs(self, net: Any, batch: Batch) -> Tensor:
        logits: Tensor = net(batch.pixels).logits
        return logits

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch.labels)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        return Learner(net, self, teacher, weight, temperature)

    def validate(self, net: Any) -> dict[str, float]:
        assert not net.training
        batch = self.batch(np.arange(60, 80))
        return {"accuracy": 100 * float((self.outputs(net, batch).argmax(-1) == batch.labels).float().mean())}

    def baselines(self) -> dict[str, float]:
        return {"chance": 100 / 3}

    def example(self) -> dict[str, Tensor]:
        return {"pixel_values": torch.from_numpy(self.pixels[:1])}

    def save(self, net: nn.Module, folder: Path) -> None:
        hf.save_pretrained(net, folder)


RECIPE = SlimRecipe(
    "classify",
    dense=Stage(2, 1e-2),
    slim=Slim("upop", 0.5),
    search=Search(2, 1e-3),
    training=Training(epochs=2, batch=10, learning_rate=1e-3, precision="float32", warmup=1),
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slimming, "open_task", Toy)


def weights(folder: Path) -> dict[str, Tensor]:
    return hf.from_pretrained(folder / "model").state_dict()


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_half_of_the_units_go_and_the_result_says_what_is_left(tmp_path: Path) -> None:
    found = run_slim(RECIPE, tmp_path / "run", tmp_path)
    assert found == json.loads((tmp_path / "run/result.json").read_text())
    counts = found["parameters"]
    assert abs(counts["left"] / counts["prunable"] - 0.5) < 0.02
    assert counts["dense"] - counts["now"] == counts["prunable"] - counts["left"]
    assert found["macs"]["now"] < found["macs"]["dense"]
    net: Any = hf.from_pretrained(tmp_path / "run/model")
    assert sum(parameter.numel() for parameter in net.parameters()) == counts["now"]
    slim = {name: of["width"] for name, of in found["widths"].items() if of["width"] < of["size"]}
    assert slim == net.config.slim_dims
    kept = json.loads((tmp_path / "run/search/slim.json").read_text())["kept"]
    assert {name: len(units) for name, units in kept.items()} == {n: of["width"] for n, of in found["widths"].items()}
    assert found["skipped"] == ["a.jpg: truncated"]
    assert set(found["seconds"]) == {"dense", "search", "training", "scoring"}
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_without_a_method_the_model_stays_dense(tmp_path: Path) -> None:
    found = run_slim(replace(RECIPE, slim=Slim()), tmp_path / "run", tmp_path)
    assert found["parameters"]["now"] == found["parameters"]["dense"]
    assert (found["widths"], found["ratio"]) == ({}, 0.0)
    assert not (tmp_path / "run/search").exists()


class StoppedError(Exception):
    """As a kill would, between two steps."""


@pytest.mark.parametrize("stage", ["dense", "search", "training"])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    expected = run_slim(RECIPE, tmp_path / "whole", tmp_path)
    fit: Callable[..., None] = slimming.Run.fit

    def stopped(run: Any) -> None:
        if run.folder.name == stage:
            score = run.validate
            run.validate = lambda model: (_ for _ in ()).throw(StoppedError) if run.step == run.steps else score(model)
        fit(run)

    with monkeypatch.context() as patch:
        patch.setattr(slimming.Run, "fit", stopped)
        with pytest.raises(StoppedError):
            run_slim(RECIPE, tmp_path / "run", tmp_path)
    assert (tmp_path / "run" / stage / "last.pt").exists()  # of the epoch before
    with pytest.raises(TrainingError, match="--resume"):
        run_slim(RECIPE, tmp_path / "run", tmp_path)
    found = run_slim(RECIPE, tmp_path / "run", tmp_path, resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")
    assert {**found, "seconds": {}} == {**expected, "seconds": {}}
    assert set(found["seconds"]) == set(expected["seconds"])


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_slim(RECIPE, tmp_path / "run", tmp_path)
    monkeypatch.setattr(slimming, "open_task", lambda *_: pytest.fail("opened again"))
    assert run_slim(RECIPE, tmp_path / "run", tmp_path) == found
    with pytest.raises(TrainingError, match="other settings"):
        run_slim(replace(RECIPE, slim=Slim("upop", 0.4)), tmp_path / "run", tmp_path)


def test_a_model_of_a_run_is_slimmed_again(tmp_path: Path) -> None:
    run_slim(RECIPE, tmp_path / "first", tmp_path)
    again = replace(RECIPE, dense=Stage(), model=ModelRecipe(initial=str(tmp_path / "first/model")))
    found = run_slim(again, tmp_path / "second", tmp_path)
    assert abs(found["parameters"]["left"] / found["parameters"]["prunable"] - 0.5) < 0.05


def test_a_search_that_cannot_be_is_refused_before_the_dense_training(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="can go where each module keeps"):
        run_slim(replace(RECIPE, slim=Slim("upop", 0.99)), tmp_path / "run", tmp_path)
    assert not (tmp_path / "run/dense").exists()


def test_a_shrink_that_changes_what_the_model_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink = slimming.UPop.shrink

    def wrong(upop: Any) -> Any:
        net = shrink(upop)
        with torch.no_grad():
            net.classifier.bias += 1e-3
        return net

    monkeypatch.setattr(slimming.UPop, "shrink", wrong)
    with pytest.raises(TrainingError, match=r"the shrunk model differs from the masked one by 0\.001"):
        run_slim(RECIPE, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run/slim").exists()


def test_a_teacher_changes_what_is_learned(tmp_path: Path) -> None:
    run_slim(RECIPE, tmp_path / "alone", tmp_path)
    run_slim(replace(RECIPE, distillation=Distillation("dense")), tmp_path / "taught", tmp_path)
    assert weights(tmp_path / "alone").keys() == weights(tmp_path / "taught").keys()
    assert not same(tmp_path / "alone", tmp_path / "taught")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": Search()}, "needs a search"),
        ({"model": ModelRecipe(initial="x")}, "dense.epochs"),
        ({"distillation": Distillation("other.safetensors")}, "distillation.teacher"),
        ({"distillation": Distillation("dense"), "slim": Slim()}, "leave it out"),
        ({"training": Training(encoder_learning_rate=1e-3)}, "encoder_learning_rate"),
    ],
)
def test_recipes_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(RECIPE, **change)


@pytest.mark.parametrize("values", [{"method": "smp"}, {"ratio": 1.0}, {"method": "published", "multiple": 8}])
def test_ways_to_slim_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="slim"):
        Slim(**values)


def test_a_study_begins_runs_with_the_models_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        '[base]\ntask = "classify"\ntraining = { precision = "float32" }\n[[run]]\nname = "first"\n'
        '[[run]]\nname = "second"\nmodel.initial = "{runs}/first"\n'
    )
    shown: list[str] = []
    monkeypatch.setattr("rich.console.Console.print", lambda _, text, **__: shown.append(str(text)))
    assert study(Study(file, out=tmp_path / "runs", check=True)) == 0
    assert shown == ["first", "second  after first"]
    assert table.TASKS["classify"].startswith("laconic.tasks")
