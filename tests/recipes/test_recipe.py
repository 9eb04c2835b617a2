"""Recipes from start to end on generated scenes; every recipe of the repository."""

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laconic import store
from laconic.captioner.image_captioner import DecoderConfig, EncoderConfig, load, save
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.config import read_toml, to_mapping
from laconic.data import Scenes, readable, write_karpathy
from laconic.data.regions import read_regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError, TrainingError
from laconic.recipes import recipe as recipes
from laconic.recipes.folders import check_ticket
from laconic.recipes.pruning import METHODS, OPTIONS, Pruning, first_losses, make_pruner
from laconic.recipes.recipe import (
    DataRecipe,
    Recipe,
    Watcher,
    build,
    encoder_changes,
    open_source,
    run,
    splits,
    training_batches,
)
from laconic.training.checkpoint import load_checkpoint, save_checkpoint
from laconic.training.scst import Scst
from laconic.training.settings import Training

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))

DENSE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=48, val=8),
    encoder=EncoderConfig("mobilenet_v1_025", size=32, stride=16, norm=True),
    decoder=DecoderConfig(options={"word": 12, "hidden": 16}),
    training=Training(
        epochs=3, batch=8, learning_rate=5e-3, encoder_learning_rate=1e-3, precision="float32", mirror=False
    ),
    decoding=Decoding(beam=2),
)
PRUNED = replace(DENSE, pruning=Pruning("supermask", 0.8, "all"))
FROZEN = replace(
    DENSE,
    encoder=replace(DENSE.encoder, norm=False),
    training=replace(DENSE.training, encoder_learning_rate=0.0, mirror=True),
    pruning=Pruning("supermask", 0.7, "decoder"),
)


@pytest.fixture(scope="module", params=[DENSE, PRUNED, FROZEN], ids=["dense", "all", "decoder"])
def finished(request, tmp_path_factory):
    """Recipe, folder and result of a run."""
    folder = tmp_path_factory.mktemp("run") / "deep" / "er"
    return request.param, folder, run(request.param, folder, folder.parent / "cache")


def test_what_the_encoder_sees_is_cached_as_pixels_where_it_learns(finished):
    recipe, folder, _ = finished
    kept = {path.name for path in folder.parent.glob("cache/*/*.npy")} - {"valid.npy"}
    assert kept == ({"pixels.npy"} if encoder_changes(recipe) else {"grid.npy", "pooled.npy"})


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
    assert kept == total - int(recipe.pruning.sparsity * total)


def test_a_finished_run_is_not_repeated(finished, monkeypatch):
    recipe, folder, result = finished
    monkeypatch.setattr(recipes, "build", None)
    said: list[str] = []
    for resume in (False, True):
        again = run(recipe, folder, folder.parent / "cache", resume=resume, watch=Watcher(say=said.append))
        assert again == json.loads(json.dumps(result))
    assert said == [f"{folder} is finished; nothing to do"] * 2


def test_another_recipe_may_not_use_the_folder(finished):
    recipe, folder, _ = finished
    other = replace(recipe, training=replace(recipe.training, epochs=4, seed=9))
    with pytest.raises(TrainingError, match=r"training\.epochs: 3 -> 4; training\.seed: 1 -> 9"):
        run(other, folder, folder.parent / "cache")


class Stopped(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("recipe", [PRUNED, FROZEN], ids=["all", "decoder"])
def test_an_interrupted_run_needs_resume_and_ends_the_same(recipe, tmp_path, monkeypatch):
    expected = run(recipe, tmp_path / "whole", tmp_path / "cache")
    original, calls = recipes.Run._train_step, []

    def stopping(self, epoch, position):
        calls.append((epoch, position))
        if len(calls) == 10:
            raise Stopped
        return original(self, epoch, position)

    with monkeypatch.context() as stops:
        stops.setattr(recipes.Run, "_train_step", stopping)
        with pytest.raises(Stopped):
            run(recipe, tmp_path / "parts", tmp_path / "cache")
    with pytest.raises(TrainingError, match="unfinished run; continue it with --resume"):
        run(recipe, tmp_path / "parts", tmp_path / "cache")
    torch.manual_seed(99)
    found = run(recipe, tmp_path / "parts", tmp_path / "cache", resume=True)
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert a == b


# Starting from a packed captioner


def test_initial_weights_are_taken_over_and_must_fit(finished):
    recipe, folder, _ = finished
    path = str(folder / "model.safetensors")
    folded = replace(recipe, initial=path, encoder=replace(recipe.encoder, norm=False))
    train, _ = splits(recipe.data)
    found, packed = build(folded, train), load(Path(path))
    assert found.vocabulary == packed.vocabulary
    for name, tensor in packed.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    with pytest.raises(ConfigError, match=r"has encoder.*stride=16.*asks for.*stride=32"):
        build(replace(folded, encoder=replace(folded.encoder, stride=32)), train)
    with pytest.raises(ConfigError, match=r"has decoder.*asks for"):
        build(replace(folded, decoder=DecoderConfig(options={"word": 12, "hidden": 17})), train)
    other_dropout = {**recipe.decoder.options, "dropout": 0.123}
    build(replace(folded, decoder=replace(recipe.decoder, options=other_dropout)), train)


def test_initial_weights_of_another_function_are_refused_though_their_shapes_fit(tmp_path):
    options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    recipe = replace(SHORT, decoder=DecoderConfig("object_relation", {**options, "plus_one": False}))
    train, _ = splits(recipe.data)
    save(build(recipe, train), tmp_path / "model.safetensors", "exact")
    start = {"initial": str(tmp_path / "model.safetensors"), "encoder": replace(recipe.encoder, norm=False)}
    build(replace(recipe, **start), train)
    with pytest.raises(ConfigError, match=r"'plus_one': False.*asks for"):
        build(replace(recipe, **start, decoder=DecoderConfig("object_relation", options)), train)


def test_a_frozen_encoder_is_pruned_by_its_masks_alone(tmp_path):
    """Stage one of scheme A: the encoder's weights stay, its gates learn."""
    recipe = replace(FROZEN, pruning=Pruning("supermask", 0.5, "all"))
    train = splits(recipe.data)[0]
    torch.manual_seed(recipe.training.seed)
    before = build(recipe, train).encoder.state_dict()
    result = run(recipe, tmp_path / "run", tmp_path / "cache")
    after = load(tmp_path / "run" / "model.safetensors").encoder.state_dict()
    zeros = 0
    for name, weight in after.items():
        assert torch.equal(weight[weight != 0], before[name][weight != 0])
        zeros += int((weight == 0).sum() - (before[name] == 0).sum())
    assert zeros > 0
    counts = result["non_zeros"]
    assert counts["decoder"] + counts["encoder"] < 0.6 * (counts["decoder_weights"] + counts["encoder_weights"])


# Every method

SHORT = replace(FROZEN, training=replace(FROZEN.training, epochs=2), pruning=Pruning())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a dense run with a frozen encoder."""
    folder = tmp_path_factory.mktemp("dense")
    run(SHORT, folder / "run", folder / "cache")
    return folder / "run"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_of_a_recipe_ends_at_its_target(trained, tmp_path, method):
    asked = 0.0 if method == "frozen" else 0.6
    pruning = Pruning(method, asked, ticket=str(trained) if method == "lottery" else "")
    start = str(trained / "model.safetensors") if method in ("magnitude", "frozen") else ""
    result = run(replace(SHORT, initial=start, pruning=pruning), tmp_path / "run", trained.parent / "cache")
    weights = load(tmp_path / "run" / "model.safetensors").decoder.named_parameters()
    matrices = [w for name, w in weights if not name.endswith("bias")]
    total, kept = (sum(map(count, matrices)) for count in (torch.numel, torch.count_nonzero))
    assert int(kept) == total - int(asked * total)
    assert result["best"]["CIDEr"] >= 0


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"frozen"}))
def test_what_is_frozen_does_not_count(trained, tmp_path, method):
    """The encoder rests at its own zeros, none here: of the decoder's weights alone the share is exact."""
    pruning = Pruning(method, 0.6, where="all", freeze="encoder", ticket=str(trained) if method == "lottery" else "")
    recipe = replace(SHORT, pruning=pruning)
    assert not encoder_changes(recipe)
    assert encoder_changes(replace(recipe, pruning=replace(pruning, freeze="none")))
    run(recipe, tmp_path / "run", trained.parent / "cache")
    captioner = load(tmp_path / "run" / "model.safetensors")
    matrices = [w for name, w in captioner.decoder.named_parameters() if not name.endswith("bias")]
    total, kept = (sum(map(count, matrices)) for count in (torch.numel, torch.count_nonzero))
    assert int(kept) == total - int(0.6 * total)
    before = load(trained / "model.safetensors").encoder.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in captioner.encoder.state_dict().items())


def test_a_lottery_ticket_has_the_trained_masks_on_the_first_weights(trained, tmp_path):
    recipe = replace(SHORT, pruning=Pruning("lottery", 0.6, ticket=str(trained)))
    start = build(recipe, splits(recipe.data)[0])
    check_ticket(recipe)
    make_pruner(start, recipe.pruning, 10, lambda _: []).finalize()
    torch.manual_seed(recipe.training.seed)
    fresh, end = build(SHORT, splits(recipe.data)[0]), load(trained / "model.safetensors")
    start_gates, fresh_gates, end_gates = (c.decoder.gates.weight for c in (start, fresh, end))
    kept = start_gates != 0
    assert end_gates[kept].abs().min() > end_gates[~kept].abs().max()
    torch.manual_seed(recipe.training.seed)
    assert torch.equal(build(recipe, splits(recipe.data)[0]).decoder.gates.weight, fresh_gates)


def test_gates_and_model_of_a_run_agree(trained, tmp_path):
    """Too short for the masks to come near their target, so that the end trims much."""
    recipe = replace(SHORT, pruning=Pruning("supermask", 0.6, weight=0.01, settle=0.5, pace=False, adaptive=False))
    run(recipe, tmp_path / "run", trained.parent / "cache")
    model = load(tmp_path / "run" / "model.safetensors")
    weights = dict(model.named_parameters())
    gates = load_checkpoint(tmp_path / "run" / "gates.pt")["gates"]
    assert gates
    for name, gate in gates.items():
        assert torch.equal(gate > 0, weights[name] != 0)


def test_gates_of_another_run_are_refused(trained, tmp_path):
    cache = trained.parent / "cache"
    for sparsity in (0.3, 0.8):
        run(replace(SHORT, pruning=Pruning("supermask", sparsity)), tmp_path / str(sparsity), cache)
    mixed = Pruning("frozen", ticket=str(tmp_path / "0.3"))
    recipe = replace(SHORT, initial=str(tmp_path / "0.8" / "model.safetensors"), pruning=mixed)
    with pytest.raises(ConfigError, match=r"gates\.pt: [\d,]+ of [\d,]+ weights that these gates keep are zero"):
        run(recipe, tmp_path / "run", cache)


def test_frozen_masks_go_on_being_drawn_from_a_supermask_runs_gates(trained, tmp_path):
    first = replace(SHORT, pruning=Pruning("supermask", 0.6))
    run(first, tmp_path / "first", trained.parent / "cache")
    start = str(tmp_path / "first" / "model.safetensors")
    second = replace(first, initial=start, pruning=Pruning("frozen", ticket=str(tmp_path / "first")))
    pruner = make_pruner(build(second, splits(second.data)[0]), second.pruning, 9, lambda _: [])
    assert {mask.sampling for mask in pruner.active.values()} == {"bernoulli"}
    assert pruner.near_target
    sparse = load(Path(start)).decoder.state_dict()
    for name, keep in pruner.masks().items():
        assert torch.equal(keep, sparse[name.removeprefix("decoder.")] != 0)
    with pytest.raises(ConfigError, match=r"gates\.pt: no gates"):
        run(replace(second, pruning=Pruning("frozen", ticket=str(trained))), tmp_path / "second", tmp_path)
    save_checkpoint({"weights": torch.ones(2)}, tmp_path / "first" / "gates.pt")
    with pytest.raises(ConfigError, match=r"gates\.pt: holds no gates"):
        run(second, tmp_path / "second", tmp_path)


def test_what_a_supermask_run_has_no_gates_for_keeps_its_zeros(trained, tmp_path):
    """Scheme A: the decoder is pruned first, then the encoder's masks are learned, then both are drawn or kept."""
    cache = trained.parent / "cache"
    run(replace(SHORT, pruning=Pruning("supermask", 0.6)), tmp_path / "decoder", cache)
    start = str(tmp_path / "decoder" / "model.safetensors")
    masks = replace(SHORT, initial=start, pruning=Pruning("supermask", 0.5, "all", freeze="decoder"))
    run(masks, tmp_path / "masks", cache)
    start = str(tmp_path / "masks" / "model.safetensors")
    both = replace(SHORT, initial=start, pruning=Pruning("frozen", where="all", ticket=str(tmp_path / "masks")))
    assert encoder_changes(both)
    pruner = make_pruner(build(both, splits(both.data)[0]), both.pruning, 9, lambda _: [])
    assert {type(mask).__name__ for name, mask in pruner.active.items() if name[0] == "d"} == {"FixedMask"}
    assert {type(mask).__name__ for name, mask in pruner.active.items() if name[0] == "e"} == {"LearnedMask"}
    result = run(both, tmp_path / "both", cache)
    assert (
        result["non_zeros"]["decoder"]
        <= json.loads((tmp_path / "masks" / "result.json").read_text())["non_zeros"]["decoder"]
    )


def test_a_ticket_that_is_sparser_than_asked_for_is_refused(trained, tmp_path):
    cache = trained.parent / "cache"
    run(replace(SHORT, pruning=Pruning("gradual", 0.9)), tmp_path / "gradual", cache)
    with pytest.raises(ConfigError, match="cannot be less sparse than the run it is taken from"):
        run(replace(SHORT, pruning=Pruning("lottery", 0.5, ticket=str(tmp_path / "gradual"))), tmp_path / "run", cache)
    again = replace(SHORT, pruning=Pruning("lottery", 0.95, ticket=str(tmp_path / "gradual")))  # iterative
    assert run(again, tmp_path / "again", cache)["non_zeros"]["decoder"] > 0


def test_a_sparse_captioner_is_not_filled_up_unasked(trained, tmp_path):
    run(replace(SHORT, pruning=Pruning("supermask", 0.6)), tmp_path / "sparse", trained.parent / "cache")
    start = str(tmp_path / "sparse" / "model.safetensors")
    with pytest.raises(ConfigError, match=r'% of its decoder is zero.*"frozen"'):
        run(replace(SHORT, initial=start), tmp_path / "run", trained.parent / "cache")


@pytest.mark.parametrize(
    ("part", "pruning", "filled"),
    [
        ("decoder", Pruning("magnitude", 0.5, "encoder"), "decoder"),
        ("encoder", Pruning("frozen"), "encoder"),
        ("encoder", Pruning(), "encoder"),
        ("encoder", Pruning("magnitude", 0.5, "decoder", freeze="encoder"), "encoder"),
        ("decoder", Pruning("magnitude", 0.5, "all"), None),
        ("decoder", Pruning("magnitude", 0.5, "all", freeze="decoder"), None),
        ("encoder", Pruning("frozen", where="all"), None),
    ],
)
def test_no_part_that_learns_is_filled_up(trained, tmp_path, part, pruning, filled):
    sparse = load(trained / "model.safetensors")
    Pruner(sparse, Magnitude(0.8), where=lambda name, _: name.startswith(part)).finalize()
    save(sparse, tmp_path / "sparse.safetensors", "exact")
    learning = replace(SHORT.training, encoder_learning_rate=1e-3)
    encoder = replace(SHORT.encoder, norm=False)
    recipe = Recipe(
        SHORT.data,
        encoder,
        decoder=SHORT.decoder,
        initial=str(tmp_path / "sparse.safetensors"),
        pruning=pruning,
        training=learning,
    )
    expected = pytest.raises(ConfigError, match=f"% of its {filled} is zero") if filled else nullcontext()
    with expected:
        build(recipe, splits(recipe.data)[0])


def test_a_method_needs_a_sparsity():
    with pytest.raises(ConfigError, match=r'"gradual" needs pruning\.sparsity'):
        Pruning("gradual")
    for sparsity in (-0.5, 1.0, 95.0, math.nan):
        with pytest.raises(ConfigError, match=r"pruning\.sparsity = .*0 <= sparsity < 1"):
            Pruning("lottery", sparsity, ticket="runs/dense")
    with pytest.raises(ConfigError, match=r"pruning\.sparsity = 0\.5, but nothing is pruned: name a pruning\.method"):
        Pruning(sparsity=0.5)
    with pytest.raises(ConfigError, match=r'pruning\.scope = "uniform" is no option of "snip"'):
        Pruning("snip", 0.5, scope="uniform")
    with pytest.raises(ConfigError, match=r'"lottery" needs pruning\.ticket'):
        Pruning("lottery", 0.6)


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("magnitude", {"end": 100}, r"pruning\.end = 100 is no option of \"magnitude\""),
        ("magnitude", {"centred": True}, r"centred = true is for pruning\.scope = \"distribution\""),
        ("gradual", {"signed": True}, r"pruning\.signed = true is no"),
        ("supermask", {"ticket": "runs/a"}, r"pruning\.ticket = \"runs/a\" is no"),
        ("supermask", {"interval": 5}, r"pruning\.interval = 5 is no"),
        ("snip", {"adaptive": True}, r"pruning\.adaptive = true is no"),
        ("lottery", {"ticket": "runs/a", "batches": 4}, r"pruning\.batches = 4 is no"),
    ],
)
def test_options_that_a_method_would_pass_over_are_refused(method, options, named):
    with pytest.raises(ConfigError, match=named):
        Pruning(method, 0.5, **options)


def test_frozen_masks_take_no_sparsity():
    with pytest.raises(ConfigError, match=r'pruning\.sparsity = 0\.9 is no option of "frozen"'):
        Pruning("frozen", 0.9)


def test_every_method_has_its_options_and_every_option_a_method():
    assert OPTIONS.keys() == METHODS.keys()
    named = {option for options in OPTIONS.values() for option in options}
    assert named | {"method", "where", "freeze"} == {field.name for field in fields(Pruning)}


def test_a_captioner_beyond_all_memory_is_refused_before_any_is_taken():
    train = splits(SHORT.data)[0]
    for hidden, message in ((10**6, "weights, the limit is"), (10**10, "too large to be built")):
        decoder = DecoderConfig("soft_attention", {"hidden": hidden})
        with pytest.raises(ConfigError, match=message):
            build(replace(SHORT, decoder=decoder), train)


def test_snip_takes_batches_of_further_epochs(trained):
    recipe = replace(SHORT, pruning=Pruning("snip", 0.6, batches=7))
    asked = []

    class Counted:
        def __len__(self) -> int:
            return 3

        def __call__(self, epoch: int, position: int):
            asked.append((epoch, position))
            return batches(0, 0)

    train = splits(recipe.data)[0]
    captioner = build(recipe, train)
    source = open_source(captioner, recipe, train, trained.parent / "cache", True, "train", Watcher())
    batches = training_batches(recipe, source, train, captioner.vocabulary)
    make_pruner(captioner, recipe.pruning, 9, first_losses(captioner, Counted(), 0.0))
    assert asked == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_scst_goes_on_from_a_sparse_model_and_keeps_its_zeros(trained, tmp_path, baseline):
    cache = trained.parent / "cache"
    run(replace(SHORT, pruning=Pruning("supermask", 0.6)), tmp_path / "sparse", cache)
    start = tmp_path / "sparse" / "model.safetensors"
    recipe = replace(
        SHORT,
        initial=str(start),
        objective="scst",
        scst=Scst(samples=3, baseline=baseline),
        pruning=Pruning("frozen"),
        training=replace(SHORT.training, epochs=1, schedule="constant", learning_rate=1e-3, warmup=0),
    )
    result = run(recipe, tmp_path / "scst", cache)
    before, after = (load(f).decoder.state_dict() for f in (start, tmp_path / "scst" / "model.safetensors"))
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert changed
    assert all(not after[name][before[name] == 0].any() for name in before if not name.endswith("bias"))
    assert result["best"]["step"] == 6
    rows = [json.loads(line) for line in (tmp_path / "scst" / "log.jsonl").read_text().splitlines()]
    assert {"reward", "baseline"} <= rows[0].keys()


def test_region_features_take_the_place_of_photos(tmp_path):
    data = DataRecipe("scenes", regions=str(tmp_path / "regions"), min_count=1, train=48, val=8)
    rng = np.random.default_rng(0)
    (tmp_path / "regions" / "cocobu_att").mkdir(parents=True)
    for image in {example.id for split in splits(data) for example in split}:
        count = 1 + image % 3
        np.save(tmp_path / "regions" / "cocobu_att" / f"{image}.npy", rng.normal(size=(count, 6)).astype(np.float32))
    recipe = replace(
        SHORT,
        data=data,
        encoder=EncoderConfig("regions", channels=6),
        decoder=DecoderConfig("up_down", {"word": 8, "hidden": 8, "attention": 4}),
        pruning=Pruning("supermask", 0.5),
        training=replace(SHORT.training, mirror=False),
    )
    result = run(recipe, tmp_path / "run", tmp_path / "cache")
    assert result["non_zeros"]["encoder_weights"] == 0
    captioner = load(tmp_path / "run" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"data\.train = -5; give at least 0"):
        replace(data, train=-5)
    assert len(captioner.caption([read_regions(tmp_path / "regions" / "cocobu_att" / "1.npy", 6)])) == 1
    again = replace(recipe, initial=str(tmp_path / "run" / "model.safetensors"))
    again = replace(again, training=replace(again.training, encoder_learning_rate=1e-3))
    build(again, splits(data)[0])  # an encoder without weights has none to fill up
    with pytest.raises(ConfigError, match="cannot be mirrored"):
        replace(recipe, training=replace(recipe.training, mirror=True))
    with pytest.raises(ConfigError, match=r"needs data\.regions"):
        replace(recipe, data=replace(data, regions=""))


def test_missing_photos_are_left_out_and_region_features_need_none(tmp_path):
    root = tmp_path / "data"
    write_karpathy(root, "flickr8k", {"train": Scenes(4), "val": Scenes(2, split="val")})
    first = next((root / "images").glob("train_*"))
    first.unlink()
    recipe = DataRecipe("flickr8k", str(root), min_count=1)
    train, _ = splits(recipe)
    skipped = []
    assert len(list(readable(train, 32, skipped))) == 3
    assert [Path(one.name).name for one in skipped] == [first.name]
    shutil.rmtree(root / "images")
    with pytest.raises(DataError, match="4 of 4 images are missing"):
        splits(recipe)
    assert [len(split) for split in splits(replace(recipe, regions="somewhere"))] == [4, 2]


def test_scst_from_scratch_is_refused():
    with pytest.raises(ConfigError, match="give its packed file as initial"):
        replace(SHORT, objective="scst")


# Recipes of the repository


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse_and_build(path):
    recipe = read_toml(path, Recipe)
    assert read_toml(path, Recipe) == recipe
    json.dumps(to_mapping(recipe))
    tiny = replace(
        recipe, objective="cross_entropy", initial="", imagenet="", data=DataRecipe("scenes", min_count=1, train=4)
    )
    captioner = build(tiny, splits(tiny.data)[0])
    if recipe.pruning.where == "decoder":
        pruner = recipes.make_pruner(captioner, recipe.pruning, 10, lambda _: [])
        assert pruner is None or all(name.startswith("decoder.") for name in pruner.masks())
