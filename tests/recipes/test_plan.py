"""What a recipe comes to on this machine: captioner, masks and data that fit each other, or an error."""

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from laconic.captioner.packing import load, save
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.data import Scenes, readable, write_karpathy
from laconic.data.karpathy import SPLITS
from laconic.errors import ConfigError, DataError
from laconic.recipes.methods import method_class, method_of
from laconic.recipes.plan import Place, build, check, encoder_changes, part, plan
from laconic.recipes.recipe import DataRecipe, Pruning, Recipe
from laconic.recipes.run import run_recipe
from laconic.recipes.splits import splits
from laconic.recipes.tickets import FrozenMasks
from laconic.spec.model import DecoderConfig, EncoderConfig
from laconic.training.checkpoint import save_checkpoint

PLACE = Place(Path("run"), Path("cache"))


def pruned(recipe: Recipe, method: str, **options: object) -> Recipe:
    return replace(recipe, pruning=Pruning(method, options=options))


def pruner_of(recipe: Recipe) -> Pruner:
    planned = plan(recipe, PLACE)
    masks = planned.masks
    return Pruner(planned.captioner, masks.method, steps=10, where=masks.where, freeze=masks.freeze)


def test_initial_weights_are_taken_over_and_must_fit(trained, short):
    path = str(trained / "model.safetensors")
    recipe = short
    folded = replace(recipe, initial=path)
    train, _ = splits(recipe.data)
    found, packed = build(folded, train), load(Path(path))
    assert found.vocabulary == packed.vocabulary
    for name, tensor in packed.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    with pytest.raises(ConfigError, match=r"has another encoder than .*encoder\.stride: 16 -> 32"):
        build(replace(folded, encoder=replace(folded.encoder, stride=32)), train)
    with pytest.raises(ConfigError, match=r"has another captioner than .*decoder\.options\.hidden: 16 -> 17"):
        build(replace(folded, decoder=DecoderConfig(options={"word": 12, "hidden": 17})), train)
    other_dropout = {**recipe.decoder.options, "dropout": 0.123}
    build(replace(folded, decoder=replace(recipe.decoder, options=other_dropout)), train)


def test_an_encoder_is_taken_over_from_a_captioner_of_another_kind(trained, short):
    path = trained / "model.safetensors"
    recipe = replace(short, decoder=DecoderConfig("up_down", {"word": 8, "hidden": 8}), encoder_from=str(path))
    train, _ = splits(recipe.data)
    found, packed = build(recipe, train), load(path)
    for name, tensor in packed.encoder.state_dict().items():
        assert torch.equal(found.encoder.state_dict()[name], tensor)
    with pytest.raises(ConfigError, match=r"has another encoder than .*encoder\.stride: 16 -> 32"):
        build(replace(recipe, encoder=replace(recipe.encoder, stride=32)), train)


def test_initial_weights_of_another_function_are_refused_though_their_shapes_fit(tmp_path, short):
    options = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8}
    recipe = replace(short, decoder=DecoderConfig("object_relation", {**options, "plus_one": False}))
    train, _ = splits(recipe.data)
    save(build(recipe, train), tmp_path / "model.safetensors", "exact")
    start = {"initial": str(tmp_path / "model.safetensors"), "encoder": replace(recipe.encoder, norm=False)}
    build(replace(recipe, **start), train)
    with pytest.raises(ConfigError, match=r"options\.plus_one: False -> True"):
        build(replace(recipe, **start, decoder=DecoderConfig("object_relation", options)), train)


def test_a_lottery_ticket_has_the_trained_masks_on_the_first_weights(trained, tmp_path, short):
    recipe = pruned(short, "lottery", sparsity=0.6, ticket=str(trained))
    start = pruner_of(recipe).finalize()
    torch.manual_seed(recipe.training.seed)
    fresh, end = build(short, splits(recipe.data)[0]), load(trained / "model.safetensors")
    start_gates, fresh_gates, end_gates = (c.decoder.gates.weight for c in (start, fresh, end))
    kept = start_gates != 0
    assert end_gates[kept].abs().min() > end_gates[~kept].abs().max()
    torch.manual_seed(recipe.training.seed)
    assert torch.equal(build(recipe, splits(recipe.data)[0]).decoder.gates.weight, fresh_gates)


def test_gates_of_another_run_are_refused(trained, tmp_path, short):
    cache = trained.parent / "cache"
    for sparsity in (0.3, 0.8):
        run_recipe(
            pruned(short, "supermask", sparsity=sparsity),
            tmp_path / str(sparsity),
            cache,
        )
    mixed = Pruning("frozen", options={"ticket": str(tmp_path / "0.3")})
    recipe = replace(short, initial=str(tmp_path / "0.8" / "model.safetensors"), pruning=mixed)
    with pytest.raises(ConfigError, match=r"gates\.pt: [\d,]+ of [\d,]+ weights that these gates keep are zero"):
        run_recipe(recipe, tmp_path / "run", cache)


def test_frozen_masks_go_on_being_drawn_from_a_supermask_runs_gates(trained, tmp_path, short):
    first = pruned(short, "supermask", sparsity=0.6)
    run_recipe(first, tmp_path / "first", trained.parent / "cache")
    start = str(tmp_path / "first" / "model.safetensors")
    second = replace(first, initial=start, pruning=Pruning("frozen", options={"ticket": str(tmp_path / "first")}))
    pruner = pruner_of(second)
    assert {mask.sampling for mask in pruner.active.values()} == {"bernoulli"}
    assert pruner.near_target
    sparse = load(Path(start)).decoder.state_dict()
    for name, keep in pruner.masks().items():
        assert torch.equal(keep, sparse[name.removeprefix("decoder.")] != 0)
    with pytest.raises(ConfigError, match=r"gates\.pt: no gates"):
        run_recipe(pruned(second, "frozen", ticket=str(trained)), tmp_path / "second", tmp_path)
    save_checkpoint({"weights": torch.ones(2)}, tmp_path / "first" / "gates.pt")
    with pytest.raises(ConfigError, match=r"gates\.pt: holds no gates"):
        run_recipe(second, tmp_path / "second", tmp_path)


def test_a_ticket_that_is_sparser_than_asked_for_is_refused(trained, tmp_path, short):
    cache = trained.parent / "cache"
    run_recipe(pruned(short, "gradual", sparsity=0.9), tmp_path / "gradual", cache)
    with pytest.raises(ConfigError, match="cannot be less sparse than the run it is taken from"):
        run_recipe(
            pruned(short, "lottery", sparsity=0.5, ticket=str(tmp_path / "gradual")),
            tmp_path / "run",
            cache,
        )
    again = replace(
        short, pruning=Pruning("lottery", options={"sparsity": 0.95, "ticket": str(tmp_path / "gradual")})
    )  # iterative
    assert run_recipe(again, tmp_path / "again", cache)["non_zeros"]["decoder"] > 0


def test_a_sparse_captioner_is_not_filled_up_unasked(trained, tmp_path, short):
    run_recipe(
        pruned(short, "supermask", sparsity=0.6),
        tmp_path / "sparse",
        trained.parent / "cache",
    )
    start = str(tmp_path / "sparse" / "model.safetensors")
    with pytest.raises(ConfigError, match=r'% of its decoder is zero.*"frozen"'):
        run_recipe(replace(short, initial=start), tmp_path / "run", trained.parent / "cache")


@pytest.mark.parametrize(
    ("part", "pruning", "filled"),
    [
        ("decoder", Pruning("magnitude", "encoder", options={"sparsity": 0.5}), "decoder"),
        ("encoder", Pruning("frozen"), "encoder"),
        ("encoder", Pruning(), "encoder"),
        ("encoder", Pruning("magnitude", "decoder", freeze="encoder", options={"sparsity": 0.5}), "encoder"),
        ("decoder", Pruning("magnitude", "all", options={"sparsity": 0.5}), None),
        ("decoder", Pruning("magnitude", "all", freeze="decoder", options={"sparsity": 0.5}), None),
        ("encoder", Pruning("frozen", "all"), None),
    ],
)
def test_no_part_that_learns_is_filled_up(trained, tmp_path, part, pruning, filled, short):
    sparse = load(trained / "model.safetensors")
    Pruner(sparse, Magnitude(0.8), where=lambda name, _: name.startswith(part)).finalize()
    save(sparse, tmp_path / "sparse.safetensors", "exact")
    learning = replace(short.training, encoder_learning_rate=1e-3)
    encoder = replace(short.encoder, norm=False)
    recipe = Recipe(
        short.data,
        encoder,
        decoder=short.decoder,
        initial=str(tmp_path / "sparse.safetensors"),
        pruning=pruning,
        training=learning,
    )
    expected = pytest.raises(ConfigError, match=f"% of its {filled} is zero") if filled else nullcontext()
    with expected:
        build(recipe, splits(recipe.data)[0])


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("gradual", {}, r"key 'sparsity' is missing"),
        ("magnitude", {"sparsity": -0.5}, "give 0 <= sparsity < 1"),
        ("magnitude", {"sparsity": 95.0}, "give 0 <= sparsity < 1"),
        ("lottery", {"sparsity": math.nan, "ticket": "runs/dense"}, "give 0 <= sparsity < 1"),
        ("lottery", {"sparsity": 0.6}, "key 'ticket' is missing"),
        ("snip", {"sparsity": 0.5, "scope": "uniform"}, "unknown key 'scope'"),
        ("snip", {"sparsity": 0.5, "batches": 0}, "batches = 0; give at least one"),
        ("supermask", {"sparsity": 0.5, "ticket": "runs/a"}, "unknown key 'ticket'"),
        ("supermask", {"sparsity": "x"}, "sparsity = 'x'; expected float"),
        ("frozen", {"sparsity": 0.9}, "unknown key 'sparsity'"),
        ("gradual", {"sparsity": 0.5, "schedule": {"strt": 1}}, "schedule: unknown key 'strt'; did you mean 'start'"),
        ("gradual", {"sparsity": 0.5, "schedule": {"interval": 0}}, "interval = 0"),
    ],
)
def test_options_that_a_method_does_not_have_are_refused_by_name(short, method, options, named):
    with pytest.raises(ConfigError, match=rf"here: pruning\.options of \"{method}\".*{named}"):
        check(replace(short, pruning=Pruning(method, options=options)), "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": DecoderConfig(options={"hiden": 5})}, "here: captioner soft_attention: unknown key 'hiden'"),
        ({"decoder": DecoderConfig(options={"hidden": 10**6})}, "here: the captioner has .* weights, the limit is"),
        ({"encoder": EncoderConfig("vgg")}, "here: encoder 'vgg' is unknown"),
        ({"data": DataRecipe("scene")}, "here: no data set 'scene'"),
        (
            {"pruning": Pruning("fisher", options={"sparsity": 0.5, "parts": {"encoder": 0.5}})},
            "here: parts: .* in 'encoder'",
        ),
        (
            {"pruning": Pruning("fisher", "all", options={"sparsity": 0.5})},
            r"here: pruning.*set training\.encoder_learning_rate above 0",
        ),
    ],
)
def test_what_cannot_be_is_found_without_data_or_memory(short, change, message):
    with pytest.raises(ConfigError, match=message):
        check(replace(short, **change), "here")


def test_a_captioner_beyond_all_memory_is_refused_before_any_is_taken(short):
    train = splits(short.data)[0]
    for hidden, message in ((10**6, "weights, the limit is"), (10**10, "too large to be built")):
        decoder = DecoderConfig("soft_attention", {"hidden": hidden})
        with pytest.raises(ConfigError, match=message):
            build(replace(short, decoder=decoder), train)


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


def test_a_method_that_is_none_is_named():
    with pytest.raises(ConfigError, match="no pruning method 'magic'; there are supermask"):
        method_class("magic")


def test_the_tokens_of_a_data_set_may_be_asked_for(tmp_path):
    """Where a data set has none, asking is a mistake."""
    sentences = [{"raw": "A dog.", "tokens": ["a", "dog"]}]
    images = [{"filename": f"{i}.jpg", "imgid": i, "split": s, "sentences": sentences} for i, s in enumerate(SPLITS)]
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    recipe = DataRecipe("flickr8k", str(tmp_path), regions="somewhere")
    assert splits(recipe)[0][0].captions == ("A dog.",)
    assert splits(replace(recipe, tokens="always"))[1][0].captions == ("a dog",)
    with pytest.raises(ConfigError, match="'scenes' has no option 'tokens'"):
        splits(DataRecipe("scenes", tokens="never"))


@pytest.mark.parametrize(
    ("method", "where", "freeze", "changes"),
    [
        ("none", "all", "none", False),
        ("magnitude", "all", "none", True),
        ("magnitude", "decoder", "none", False),
        ("magnitude", "all", "encoder", False),
        ("lottery", "all", "none", True),
        ("frozen", "all", "none", False),
    ],
)
def test_features_are_kept_where_the_encoder_stays_as_it_is(short, method, where, freeze, changes):
    options = (
        {"sparsity": 0.5} if method == "magnitude" else {"sparsity": 0.5, "ticket": "x"} if method == "lottery" else {}
    )
    recipe = replace(short, pruning=Pruning(method, where, freeze, options))
    recipe = replace(recipe, training=replace(recipe.training, encoder_learning_rate=0.0))
    chosen = None if method == "none" else method_of(method, options)
    assert encoder_changes(recipe, chosen) == changes
    if method == "frozen":  # gates that go on being drawn from
        assert encoder_changes(recipe, method_of(method, {"ticket": "x"}))


@pytest.mark.parametrize("found", [torch.eye(2).to_sparse(), torch.ones(2, 2, dtype=torch.int64), "text"])
def test_what_is_no_table_of_gates_is_refused(tmp_path, found):
    save_checkpoint({"gates": {"weight": found}}, tmp_path / "gates.pt")
    with pytest.raises(ConfigError, match=r"gates\.pt: holds no gates"):
        FrozenMasks(str(tmp_path)).resolve(torch.nn.Linear(2, 2), part("all"), part("none"))
