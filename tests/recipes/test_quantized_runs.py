"""Recipes that quantise while they train: stopped and resumed, beside pruning and a teacher, packed without loss."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.packing import load
from laconic.cli import main
from laconic.decode.search import Decoding
from laconic.recipes import run as running
from laconic.recipes.recipe import DataRecipe, Pruning, Quantization, Recipe
from laconic.recipes.run import run_recipe
from laconic.recipes.splits import splits
from laconic.spec.model import DecoderConfig, EncoderConfig
from laconic.training.settings import Distillation, Training

BOTH = Recipe(
    data=DataRecipe("scenes", min_count=1, train=48, val=8),
    encoder=EncoderConfig("toy", size=32, stride=16),
    decoder=DecoderConfig(options={"word": 16, "hidden": 24}),
    training=Training(
        epochs=3, batch=8, learning_rate=5e-3, encoder_learning_rate=1e-3, precision="float32", mirror=False
    ),
    pruning=Pruning("supermask", "all", options={"sparsity": 0.6}),
    quantization=Quantization(3, parts={"encoder.block3.pointwise": 4, "decoder.output": 8}),
    decoding=Decoding(beam=2),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and result of a run that prunes and quantises."""
    folder = tmp_path_factory.mktemp("both") / "run"
    return folder, run_recipe(BOTH, folder, folder.parent / "cache")


def test_the_run_leaves_a_file_of_codes_that_says_what_was_scored(finished):
    folder, result = finished
    packed = store.load(folder / "model.safetensors")
    assert packed.precision == "trained"
    stepped = {name for name, entry in packed.entries.items() if entry.values == "step"}
    assert {"encoder.block3.pointwise.weight", "decoder.gates.weight", "decoder.output.weight"} <= stepped
    assert not stepped & {"encoder.conv0.weight", "encoder.block1.depthwise.weight", "decoder.score.weight"}
    for name, bits in {
        "encoder.block3.pointwise.weight": 4,
        "decoder.gates.weight": 3,
        "decoder.output.weight": 8,
    }.items():
        codes = packed[name] / packed.step(name)
        assert np.abs(codes).max().round() <= 2 ** (bits - 1) - 1
        assert len(np.unique(codes.round())) > 3
    masked = [entry for entry in packed.entries.values() if len(entry.shape) > 1]
    total, kept = sum(entry.size for entry in masked), sum(entry.non_zeros for entry in masked)
    assert 0 < kept < total - int(0.6 * total)  # some have rounded to zero
    assert result["non_zeros"]["decoder"] + result["non_zeros"]["encoder"] == sum(
        entry.non_zeros for entry in packed.entries.values()
    )
    _, val = splits(BOTH.data)
    said = load(folder / "model.safetensors").caption([val[i].pixels() for i in range(8)], BOTH.decoding)
    captions = json.loads((folder / "captions.json").read_text())
    assert said == [row["caption"] for row in captions]


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("stop", [8, 14])
def test_an_interrupted_run_ends_in_the_same_bytes(finished, stop, tmp_path, monkeypatch):
    """It quantises from step 9 on, and goes on from step 6 or 12."""
    whole, cache = finished[0], finished[0].parent / "cache"
    original, calls = running.Run._train_step, []

    def stopping(self, epoch, position):
        calls.append(position)
        if len(calls) == stop:
            raise Stopped
        return original(self, epoch, position)

    with monkeypatch.context() as stops:
        stops.setattr(running.Run, "_train_step", stopping)
        with pytest.raises(Stopped):
            run_recipe(BOTH, tmp_path / "parts", cache)
    torch.manual_seed(99)
    run_recipe(BOTH, tmp_path / "parts", cache, resume=True)
    a, b = ((folder / "model.safetensors").read_bytes() for folder in (whole, tmp_path / "parts"))
    assert a == b


def test_pack_keeps_what_was_trained(finished, tmp_path, capsys):
    folder, _ = finished
    held = store.load(folder / "model.safetensors")
    assert main(["pack", str(folder), "-o", str(tmp_path / "file")]) == 0
    assert "calibrating" not in capsys.readouterr().out
    packed = store.load(tmp_path / "file")
    assert (packed.precision, packed.steps) == ("trained", held.steps)
    assert not store.compare(held, packed).changed
    assert main(["pack", str(folder), "-o", str(tmp_path / "exact"), "--values", "exact"]) == 0
    assert not store.compare(held, tmp_path / "exact").changed
    assert main(["pack", str(tmp_path / "exact"), "-o", str(tmp_path / "no"), "--values", "trained"]) == 2
    assert "exact: its weights were not quantised while they learned; train them with" in capsys.readouterr().err
    assert main(["pack", str(folder), "-o", str(tmp_path / "compact"), "--values", "compact"]) == 0
    assert store.load(tmp_path / "compact").precision == "compact"


def test_a_pruned_run_is_quantised_under_its_zeros_by_a_teacher(trained: Path, short: Recipe, tmp_path: Path) -> None:
    """The encoder stands still, and its features are those of the cache."""
    cache = trained.parent / "cache"
    sparse = replace(short, pruning=Pruning("supermask", options={"sparsity": 0.6}))
    run_recipe(sparse, tmp_path / "sparse", cache)
    recipe = replace(
        short,
        initial=str(tmp_path / "sparse" / "model.safetensors"),
        pruning=Pruning("frozen"),
        quantization=Quantization(4, start=0.0),
        distillation=Distillation(str(trained / "model.safetensors")),
    )
    result = run_recipe(recipe, tmp_path / "quantised", cache)
    assert result["best"]["step"] in (6, 12)
    before, after = (load(tmp_path / name / "model.safetensors").state_dict() for name in ("sparse", "quantised"))
    assert all(not after[name][weight == 0].any() for name, weight in before.items() if weight.ndim > 1)
    for name, weight in before.items():
        if name.startswith("encoder"):
            expected = weight if "depthwise.weight" in name else weight.half().float()
            assert torch.equal(after[name], expected)
    assert store.load(tmp_path / "quantised" / "model.safetensors").steps.keys() >= {"decoder.gates.weight"}


def test_what_rests_keeps_the_codes_it_had(finished, tmp_path: Path) -> None:
    """A new captioner on a compressed encoder: dense first, then quantised itself."""
    folder, _ = finished
    held = store.load(folder / "model.safetensors")
    coded = {name for name in held.steps if name.startswith("encoder.")}
    assert coded
    rests = replace(BOTH.training, encoder_learning_rate=0.0, epochs=1)
    dense = replace(
        BOTH,
        encoder_from=str(folder / "model.safetensors"),
        decoder=DecoderConfig("up_down", {"word": 8, "hidden": 16, "attention": 40}),
        pruning=Pruning(),
        quantization=Quantization(),
        training=rests,
    )
    small = replace(
        dense,
        initial=str(tmp_path / "dense" / "model.safetensors"),
        encoder_from="",
        quantization=Quantization(4, "decoder", start=0.0),
    )
    for name, recipe in {"dense": dense, "small": small}.items():
        run_recipe(recipe, tmp_path / name, folder.parent / "cache")
        made = store.load(tmp_path / name / "model.safetensors")
        assert made.precision == "trained"
        assert {n for n in made.steps if n.startswith("encoder.")} == coded
        for entry in held.entries:
            if entry.startswith("encoder."):
                assert made.entries[entry].bytes <= held.entries[entry].bytes
                np.testing.assert_array_equal(made[entry], held[entry])
    assert len(made.steps) > len(coded)
