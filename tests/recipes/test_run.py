"""Recipes from start to end on generated scenes: what a run leaves, how it goes on, and every method at its target."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.packing import load
from laconic.compress.masked.pruner import Pruner
from laconic.data.regions import read_regions
from laconic.decode.search import Decoding
from laconic.errors import TrainingError
from laconic.recipes import run as running
from laconic.recipes.methods import METHODS, method_class, method_of
from laconic.recipes.plan import Place, build, encoder_changes, plan
from laconic.recipes.recipe import DataRecipe, Pruning, Recipe
from laconic.recipes.run import Watcher, first_losses, run_recipe
from laconic.recipes.splits import splits
from laconic.spec.model import DecoderConfig, EncoderConfig
from laconic.training.checkpoint import load_checkpoint
from laconic.training.settings import Scst, Training

DENSE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=48, val=8),
    encoder=EncoderConfig("toy", size=32, stride=16, norm=True),
    decoder=DecoderConfig(options={"word": 12, "hidden": 16}),
    training=Training(
        epochs=3, batch=8, learning_rate=5e-3, encoder_learning_rate=1e-3, precision="float32", mirror=False
    ),
    decoding=Decoding(beam=2),
)
PRUNED = replace(DENSE, pruning=Pruning("supermask", "all", options={"sparsity": 0.8}))
FROZEN = replace(
    DENSE,
    encoder=replace(DENSE.encoder, norm=False),
    training=replace(DENSE.training, encoder_learning_rate=0.0, mirror=True),
    pruning=Pruning("supermask", "decoder", options={"sparsity": 0.7}),
)


@pytest.fixture(scope="module", params=[DENSE, PRUNED, FROZEN], ids=["dense", "all", "decoder"])
def finished(request, tmp_path_factory):
    """Recipe, folder and result of a run."""
    folder = tmp_path_factory.mktemp("run") / "deep" / "er"
    return request.param, folder, run_recipe(request.param, folder, folder.parent / "cache")


def test_what_the_encoder_sees_is_cached_as_pixels_where_it_learns(finished):
    recipe, folder, _ = finished
    kept = {path.name for path in folder.parent.glob("cache/*/*.npy")} - {"valid.npy"}
    assert kept == ({"grid.npy", "pooled.npy"} if recipe is FROZEN else {"pixels.npy"})


def test_a_finished_run_leaves_model_scores_and_captions(finished):
    _, folder, result = finished
    assert sorted(path.name for path in folder.iterdir() if path.name != "gates.pt") == [
        "captions.json",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
        "result.json",
    ]
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert {"Bleu_4", "ROUGE_L", "CIDEr"} <= result["scores"].keys()
    captions = json.loads((folder / "captions.json").read_text())
    assert [row["image_id"] for row in captions] == list(range(8))
    assert result["quality"]["captions"] == 8
    assert 0 <= result["quality"]["novel_share"] <= 1
    assert result["skipped"] == []
    assert min(result["operations"].values()) > 0
    held = [row for row in result["matrices"] if row["name"].startswith("decoder.")]
    assert 0 < sum(row["non_zeros"] for row in held) <= result["non_zeros"]["decoder"]


def test_the_file_captions_as_the_run_did(finished):
    recipe, folder, _ = finished
    captioner = load(folder / "model.safetensors")
    _, val = splits(recipe.data)
    found = captioner.caption([val[i].pixels() for i in range(8)], recipe.decoding)
    captions = [row["caption"] for row in json.loads((folder / "captions.json").read_text())]
    if recipe is FROZEN:  # cached features are float16
        assert np.mean([a == b for a, b in zip(found, captions, strict=True)]) > 0.7
    else:
        assert found == captions


def test_non_zeros_are_those_of_the_file_and_exact(finished):
    recipe, folder, result = finished
    counts = result["non_zeros"]
    entries = store.load(folder / "model.safetensors").entries.values()
    for part in ("encoder", "decoder"):
        some = [entry for entry in entries if entry.name.startswith(f"{part}.")]
        assert counts[part] == sum(entry.non_zeros for entry in some)
        assert counts[f"{part}_weights"] == sum(int(np.prod(entry.shape)) for entry in some)
    assert result["bytes"] == (folder / "model.safetensors").stat().st_size
    parts = {"none": (), "all": ("encoder.", "decoder."), "decoder": ("decoder.",)}
    pruned = parts[recipe.pruning.where if recipe.pruning.method != "none" else "none"]
    masked = [entry for entry in entries if len(entry.shape) >= 2 and entry.name.startswith(pruned or ("-",))]
    total = sum(int(np.prod(entry.shape)) for entry in masked)
    kept = sum(entry.non_zeros for entry in masked)
    assert kept == total - int(recipe.pruning.options.get("sparsity", 0) * total)


def test_a_finished_run_is_not_repeated(finished, monkeypatch):
    recipe, folder, result = finished
    monkeypatch.setattr(running, "plan", None)
    said: list[str] = []
    for resume in (False, True):
        again = run_recipe(recipe, folder, folder.parent / "cache", resume=resume, watch=Watcher(say=said.append))
        assert again == json.loads(json.dumps(result))
    assert said == [f"{folder} is finished; nothing to do"] * 2


def test_another_recipe_may_not_use_the_folder(finished):
    recipe, folder, _ = finished
    other = replace(recipe, training=replace(recipe.training, epochs=4, seed=9))
    with pytest.raises(TrainingError, match=r"training\.epochs: 3 -> 4; training\.seed: 1 -> 9"):
        run_recipe(other, folder, folder.parent / "cache")


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("recipe", [PRUNED, FROZEN], ids=["all", "decoder"])
def test_an_interrupted_run_needs_resume_and_ends_the_same(recipe, tmp_path, monkeypatch):
    expected = run_recipe(recipe, tmp_path / "whole", tmp_path / "cache")
    original, calls = running.Run._train_step, []

    def stopping(self, epoch, position):
        calls.append((epoch, position))
        if len(calls) == 10:
            raise Stopped
        return original(self, epoch, position)

    with monkeypatch.context() as stops:
        stops.setattr(running.Run, "_train_step", stopping)
        with pytest.raises(Stopped):
            run_recipe(recipe, tmp_path / "parts", tmp_path / "cache")
    with pytest.raises(TrainingError, match="unfinished run; continue it with --resume"):
        run_recipe(recipe, tmp_path / "parts", tmp_path / "cache")
    torch.manual_seed(99)
    found = run_recipe(recipe, tmp_path / "parts", tmp_path / "cache", resume=True)
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert a == b


def test_a_frozen_encoder_is_pruned_by_its_masks_alone(tmp_path):
    """Stage one of scheme A: the encoder's weights stay, its gates learn."""
    recipe = replace(FROZEN, pruning=Pruning("supermask", "all", options={"sparsity": 0.5}))
    train = splits(recipe.data)[0]
    torch.manual_seed(recipe.training.seed)
    before = build(recipe, train).encoder.state_dict()
    result = run_recipe(recipe, tmp_path / "run", tmp_path / "cache")
    after = load(tmp_path / "run" / "model.safetensors").encoder.state_dict()
    zeros = 0
    for name, weight in after.items():
        assert torch.equal(weight[weight != 0], before[name][weight != 0])
        zeros += int((weight == 0).sum() - (before[name] == 0).sum())
    assert zeros > 0
    counts = result["non_zeros"]
    assert counts["decoder"] + counts["encoder"] < 0.6 * (counts["decoder_weights"] + counts["encoder_weights"])


def pruned(recipe: Recipe, method: str, **options: object) -> Recipe:
    return replace(recipe, pruning=Pruning(method, options=options))


# Every method


def options_of(method: str, sparsity: float, ticket: Path) -> dict[str, object]:
    """A sparsity and a finished run, where the method takes them."""
    named = {field.name for field in fields(method_class(method))}
    needed = {"ticket": str(ticket)} if method_class(method).needs_ticket else {}
    return needed | ({"sparsity": sparsity} if "sparsity" in named else {})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_of_a_recipe_ends_at_its_target(trained, tmp_path, method, short):
    pruning = Pruning(method, options=options_of(method, 0.6, trained))
    asked = pruning.options.get("sparsity", 0.0)
    start = str(trained / "model.safetensors") if method in ("magnitude", "frozen") else ""
    result = run_recipe(replace(short, initial=start, pruning=pruning), tmp_path / "run", trained.parent / "cache")
    weights = load(tmp_path / "run" / "model.safetensors").decoder.named_parameters()
    matrices = [w for name, w in weights if not name.endswith("bias")]
    total, kept = (sum(map(count, matrices)) for count in (torch.numel, torch.count_nonzero))
    assert int(kept) == total - int(asked * total)
    assert result["best"]["CIDEr"] >= 0


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"frozen"}))
def test_what_is_frozen_does_not_count(trained, tmp_path, method, short):
    """The encoder rests at its own zeros, none here: of the decoder's weights alone the share is exact."""
    pruning = Pruning(method, "all", "encoder", options_of(method, 0.6, trained))
    recipe = replace(short, pruning=pruning)
    chosen = method_of(method, pruning.options)
    assert not encoder_changes(recipe, chosen)
    assert encoder_changes(replace(recipe, pruning=replace(pruning, freeze="none")), chosen)
    run_recipe(recipe, tmp_path / "run", trained.parent / "cache")
    captioner = load(tmp_path / "run" / "model.safetensors")
    matrices = [w for name, w in captioner.decoder.named_parameters() if not name.endswith("bias")]
    total, kept = (sum(map(count, matrices)) for count in (torch.numel, torch.count_nonzero))
    assert int(kept) == total - int(0.6 * total)
    before = load(trained / "model.safetensors").encoder.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in captioner.encoder.state_dict().items())


def test_gates_and_model_of_a_run_agree(trained, tmp_path, short):
    """Too short for the masks to come near their target, so that the end trims much."""
    recipe = replace(
        short,
        pruning=Pruning(
            "supermask", options={"sparsity": 0.6, "weight": 0.01, "settle": 0.5, "pace": False, "adaptive": False}
        ),
    )
    run_recipe(recipe, tmp_path / "run", trained.parent / "cache")
    model = load(tmp_path / "run" / "model.safetensors")
    weights = dict(model.named_parameters())
    gates = load_checkpoint(tmp_path / "run" / "gates.pt")["gates"]
    assert gates
    for name, gate in gates.items():
        assert torch.equal(gate > 0, weights[name] != 0)


def test_what_a_supermask_run_has_no_gates_for_keeps_its_zeros(trained, tmp_path, short):
    """Scheme A: the decoder is pruned first, then the encoder's masks are learned, then both are drawn or kept."""
    cache = trained.parent / "cache"
    run_recipe(pruned(short, "supermask", sparsity=0.6), tmp_path / "decoder", cache)
    start = str(tmp_path / "decoder" / "model.safetensors")
    masks = replace(
        short, initial=start, pruning=Pruning("supermask", "all", freeze="decoder", options={"sparsity": 0.5})
    )
    run_recipe(masks, tmp_path / "masks", cache)
    start = str(tmp_path / "masks" / "model.safetensors")
    both = replace(short, initial=start, pruning=Pruning("frozen", "all", options={"ticket": str(tmp_path / "masks")}))
    planned = plan(both, Place(tmp_path, cache))
    assert planned.encoder_changes
    pruner = Pruner(planned.captioner, planned.masks.method, steps=9, where=planned.masks.where)
    assert {type(mask).__name__ for name, mask in pruner.active.items() if name[0] == "d"} == {"FixedMask"}
    assert {type(mask).__name__ for name, mask in pruner.active.items() if name[0] == "e"} == {"LearnedMask"}
    result = run_recipe(both, tmp_path / "both", cache)
    assert (
        result["non_zeros"]["decoder"]
        <= json.loads((tmp_path / "masks" / "result.json").read_text())["non_zeros"]["decoder"]
    )


def test_snip_takes_batches_of_further_epochs(trained, short, tmp_path):
    planned = plan(short, Place(tmp_path, trained.parent / "cache"))
    batch, asked = planned_batch(planned), []

    class Counted:
        def __len__(self) -> int:
            return 3

        def __call__(self, epoch: int, position: int):
            asked.append((epoch, position))
            return batch

    assert len(list(first_losses(planned, Counted(), 7))) == 7
    assert asked == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


def planned_batch(planned):
    sources = running.open_sources(planned, Watcher())
    return running.prepare(planned, sources, Watcher()).batches(0, 0)


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_scst_goes_on_from_a_sparse_model_and_keeps_its_zeros(trained, tmp_path, baseline, short):
    cache = trained.parent / "cache"
    run_recipe(pruned(short, "supermask", sparsity=0.6), tmp_path / "sparse", cache)
    start = tmp_path / "sparse" / "model.safetensors"
    recipe = replace(
        short,
        initial=str(start),
        objective="scst",
        scst=Scst(samples=3, baseline=baseline),
        pruning=Pruning("frozen"),
        training=replace(short.training, epochs=1, schedule="constant", learning_rate=1e-3, warmup=0),
    )
    result = run_recipe(recipe, tmp_path / "scst", cache)
    before, after = (load(f).decoder.state_dict() for f in (start, tmp_path / "scst" / "model.safetensors"))
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert changed
    assert all(not after[name][before[name] == 0].any() for name in before if not name.endswith("bias"))
    assert result["best"]["step"] == 6
    rows = [json.loads(line) for line in (tmp_path / "scst" / "log.jsonl").read_text().splitlines()]
    assert {"reward", "baseline"} <= rows[0].keys()


def test_region_features_take_the_place_of_photos(tmp_path, short):
    data = DataRecipe("scenes", regions=str(tmp_path / "regions"), min_count=1, train=48, val=8)
    rng = np.random.default_rng(0)
    (tmp_path / "regions" / "cocobu_att").mkdir(parents=True)
    for image in {example.id for split in splits(data) for example in split}:
        count = 1 + image % 3
        np.save(tmp_path / "regions" / "cocobu_att" / f"{image}.npy", rng.normal(size=(count, 6)).astype(np.float32))
    recipe = replace(
        short,
        data=data,
        encoder=EncoderConfig("regions", channels=6),
        decoder=DecoderConfig("up_down", {"word": 8, "hidden": 8, "attention": 4}),
        pruning=Pruning("supermask", options={"sparsity": 0.5}),
        training=replace(short.training, mirror=False),
    )
    result = run_recipe(recipe, tmp_path / "run", tmp_path / "cache")
    assert result["non_zeros"]["encoder_weights"] == 0
    captioner = load(tmp_path / "run" / "model.safetensors")
    assert len(captioner.caption([read_regions(tmp_path / "regions" / "cocobu_att" / "1.npy", 6)])) == 1
    again = replace(recipe, initial=str(tmp_path / "run" / "model.safetensors"))
    build(again, splits(data)[0])  # an encoder without weights has none to fill up


@pytest.mark.parametrize(("slow", "precision", "said"), [(True, "bf16", 1), (False, "bf16", 0), (True, "float32", 0)])
def test_a_processor_that_is_slow_in_bfloat16_is_told_of(slow, precision, said, monkeypatch, tmp_path):
    for name, value in {"slow_in_bfloat16": lambda: slow, "plan": lambda *_: None, "run": lambda *_: {}}.items():
        monkeypatch.setattr(running, name, value)
    monkeypatch.setattr(running, "best_device", lambda: torch.device("cpu"))
    lines = []
    recipe = replace(DENSE, training=replace(DENSE.training, precision=precision))
    run_recipe(recipe, tmp_path / "run", tmp_path, watch=Watcher(say=lines.append))
    assert lines == [running.SLOW] * said
