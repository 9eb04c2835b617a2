"""Knowledge distillation: the loss, the teacher left as it is, what it teaches, and teachers that do not fit."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from laconic.captioner.ensemble import Ensemble
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load, save
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.models.layers import Features
from laconic.models.soft_attention import SoftAttention, SoftAttentionConfig
from laconic.recipes.recipe import DataRecipe, Pruning, Recipe
from laconic.recipes.run import run_recipe
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary
from laconic.training.batches import Batch, make_batches
from laconic.training.distillation import Distillation, KnowledgeDistillation, distillation_loss, load_teacher
from laconic.training.loop import Run, cross_entropy
from laconic.training.settings import Training

CAPTIONS = [["a red dog runs", "a dog runs on grass"], ["a cat sleeps"], ["two birds fly over a lake"], ["a horse"]]
VOCABULARY = Vocabulary.build((caption for some in CAPTIONS for caption in some), 1)
SETTINGS = Training(epochs=60, batch=4, learning_rate=1e-2, warmup=0, precision="float32", mirror=False)


class Source:
    """Random features, the same for a row each time."""

    valid, skipped = np.ones(len(CAPTIONS), bool), ()

    def batch(self, rows, mirrored=None):
        grid = np.random.default_rng(0).normal(size=(len(CAPTIONS), 6, 3)).astype(np.float32)[rows]
        return Features(torch.from_numpy(grid), torch.from_numpy(grid.reshape(len(rows), -1)))


BATCHES = make_batches(Source(), CAPTIONS, VOCABULARY, max_length=8, size=4, seed=1)


def make_model(seed: int, **options) -> SoftAttention:
    torch.manual_seed(seed)
    return SoftAttention(SoftAttentionConfig(len(VOCABULARY), 3, 18, **{"word": 12, "hidden": 24, **options}))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_the_divergence_of_two_distributions(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    p, q = (torch.softmax(logits.double() / temperature, -1) for logits in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    found = distillation_loss(student, teacher, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert distillation_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-6)


def test_the_objective_weighs_teacher_and_captions():
    model, teacher, batch = make_model(0).eval(), make_model(1), BATCHES(0, 0)
    logits, taught = model(batch.inputs, batch.tokens), teacher.eval()(batch.inputs, batch.tokens)
    written = cross_entropy(logits, batch.tokens, 0.1)
    divergence = distillation_loss(logits, taught, 2.0)
    loss = KnowledgeDistillation(Distillation("x", 0.3, 2.0), teacher, 0.1)(model, batch)
    torch.testing.assert_close(loss.mean, 0.7 * written + 0.3 * divergence)
    assert loss.tokens == len(logits)
    assert loss.facts == pytest.approx({"cross_entropy": written.item(), "divergence": divergence.item()})


def test_a_student_learns_what_its_teacher_says_and_leaves_it_alone(tmp_path):
    teacher = make_model(1, dropout=0.5, attention_dropout=0.5)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    batch = BATCHES(0, 0)
    taught = teacher.eval()(batch.inputs, batch.tokens)
    teacher.train()  # as whoever built it may have left it
    student = make_model(2, dropout=0.0, attention_dropout=0.0)
    first = distillation_loss(student(batch.inputs, batch.tokens), taught).item()
    objective = KnowledgeDistillation(Distillation("x", 1.0), teacher)
    Run(student, BATCHES, SETTINGS, tmp_path, objective=objective).fit()
    last = distillation_loss(student.eval()(batch.inputs, batch.tokens), taught).item()
    assert last < first / 20
    assert all(torch.equal(teacher.state_dict()[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight = 0.0; give 0 < weight <= 1, or 0 beside"),
        ({"weight": 1.5}, "weight = 1.5; give 0 < weight <= 1"),
        ({"temperature": 0.0}, "temperature = 0.0; give more than 0"),
        ({"temperature": float("nan")}, "temperature = nan; give more than 0"),
        ({"teacher": "", "weight": 0.7}, "weight is for a teacher"),
        ({"teacher": "", "ensemble": ("y",)}, "ensemble is for a teacher"),
        ({"choice": "nearest"}, "give sequences"),
        ({"alone": True}, "give sequences"),
        ({"sequences": -1}, "sequences = -1; give 0 to"),
        ({"features": -1.0}, "features = -1.0; give at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Distillation(**{"teacher": "x", **options})


# Recipes

DENSE = Recipe(
    data=DataRecipe("scenes", min_count=1, train=24, val=4),
    encoder=EncoderConfig("toy", size=32, stride=16),
    decoder=DecoderConfig(options={"word": 12, "hidden": 16}),
    training=Training(epochs=1, batch=8, learning_rate=5e-3, precision="float32", mirror=False),
    decoding=Decoding(beam=1),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Packed file of a dense run with a frozen encoder."""
    folder = tmp_path_factory.mktemp("teacher")
    run_recipe(DENSE, folder / "run", folder / "cache")
    return folder / "run" / "model.safetensors"


def with_teacher(teacher, recipe: Recipe = DENSE, **options) -> Recipe:
    return replace(recipe, distillation=Distillation(str(teacher), **options))


@pytest.mark.parametrize("encoder_rate", [0.0, 1e-3])
def test_a_pruned_captioner_is_taught_by_a_dense_one(teacher, tmp_path, encoder_rate):
    recipe = with_teacher(
        teacher, replace(DENSE, pruning=Pruning("supermask", options={"sparsity": 0.8})), temperature=2.0
    )
    recipe = replace(recipe, training=replace(recipe.training, encoder_learning_rate=encoder_rate))
    packed = teacher.read_bytes()
    result = run_recipe(recipe, tmp_path / "run", tmp_path / "cache")
    assert result["non_zeros"]["decoder"] < 0.3 * result["non_zeros"]["decoder_weights"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 0 < rows[0]["divergence"] < rows[0]["cross_entropy"]
    expected = 0.5 * rows[0]["cross_entropy"] + 0.5 * rows[0]["divergence"]
    assert rows[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert teacher.read_bytes() == packed


def student_of(captioner: ImageCaptioner, words: int | None = None, **encoder) -> ImageCaptioner:
    """A captioner with the same encoder weights, where they fit, and the same words, or fewer."""
    config = ModelConfig(replace(captioner.config.encoder, **encoder), captioner.config.decoder)
    student = ImageCaptioner(config, Vocabulary(captioner.vocabulary.words[:words]))
    if not encoder:
        student.encoder.load_state_dict(captioner.encoder.state_dict())
    return student


def test_a_teacher_in_half_precision_is_as_good(teacher, tmp_path):
    captioner = load(teacher)
    save(load(teacher), tmp_path / "half.safetensors", "half")
    load_teacher(Distillation(str(tmp_path / "half.safetensors")), student_of(captioner), reads_features=True)


def test_a_teacher_packed_from_an_encoder_with_batch_norm_is_that_encoder(tmp_path):
    """Packing folds it."""
    dense = replace(DENSE, encoder=replace(DENSE.encoder, norm=True))
    vocabulary = Vocabulary.build(["a dog"], 1)
    student = ImageCaptioner(ModelConfig(dense.encoder, dense.decoder), vocabulary)
    for module in student.encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    save(copy.deepcopy(student), tmp_path / "packed.safetensors", "half")
    before = copy.deepcopy(student.encoder.state_dict())
    load_teacher(Distillation(str(tmp_path / "packed.safetensors")), student, reads_features=True)
    after = student.encoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    with torch.no_grad():
        next(m for m in student.encoder.modules() if isinstance(m, nn.BatchNorm2d)).weight.mul_(1.1)
    with pytest.raises(ConfigError, match="other weights than the recipe's frozen one"):
        load_teacher(Distillation(str(tmp_path / "packed.safetensors")), student, reads_features=True)


def test_teachers_that_do_not_fit_are_refused(teacher):
    captioner = load(teacher)
    with pytest.raises(ConfigError, match="another vocabulary"):
        load_teacher(Distillation(str(teacher)), student_of(captioner, -1), reads_features=True)
    with pytest.raises(ConfigError, match=r"stride=16.*asks for.*stride=32"):
        load_teacher(Distillation(str(teacher)), student_of(captioner, stride=32), reads_features=True)
    with pytest.raises(ConfigError, match=r"size=32.*asks for.*size=64"):
        load_teacher(Distillation(str(teacher)), student_of(captioner, size=64), reads_features=False)
    load_teacher(
        Distillation(str(teacher)), student_of(captioner, stride=32), reads_features=False
    )  # it looks for itself
    other = student_of(captioner)
    with torch.no_grad():
        next(other.encoder.parameters()).mul_(1.1)
    with pytest.raises(ConfigError, match="other weights than the recipe's frozen one"):
        load_teacher(Distillation(str(teacher)), other, reads_features=True)


def test_a_teacher_that_does_not_fit_is_refused_before_features_are_computed(teacher, tmp_path):
    recipe = with_teacher(teacher, replace(DENSE, data=replace(DENSE.data, min_count=2)))
    with pytest.raises(ConfigError, match="another vocabulary"):
        run_recipe(recipe, tmp_path / "run", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_teacher_is_for_cross_entropy(teacher):
    with pytest.raises(ConfigError, match=r"leave distillation\.teacher out"):
        replace(with_teacher(teacher), objective="scst", initial=str(teacher))


# Several teachers


def ensemble_of(*files) -> Distillation:
    return Distillation(str(files[0]), ensemble=tuple(map(str, files[1:])))


def test_an_ensemble_teaches_the_mean_of_its_probabilities(teacher, tmp_path):
    captioner = load(teacher)
    other = load(teacher)
    with torch.no_grad():
        other.decoder.output.bias.normal_()
    save(other, tmp_path / "other.safetensors", "exact")
    found = load_teacher(ensemble_of(teacher, tmp_path / "other.safetensors"), captioner, reads_features=True)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    tokens = torch.tensor([[[2, 5, 6, 3]], [[2, 7, 3, 0]], [[2, 3, 0, 0]]])
    both = [torch.softmax(one(pixels, tokens), -1) for one in (captioner, other)]
    torch.testing.assert_close(found(pixels, tokens).exp(), (both[0] + both[1]) / 2)


def test_an_ensemble_of_one_captioner_twice_says_what_it_says(teacher):
    captioner, pixels = load(teacher), torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    twice = Ensemble([captioner, load(teacher)])
    for beam in (1, 3):
        for alone, together in zip(
            captioner.search(pixels, Decoding(beam)), twice.search(pixels, Decoding(beam)), strict=True
        ):
            assert [one.tokens for one in together] == [one.tokens for one in alone]
            assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-4)


def test_ensembles_that_cannot_be_are_refused(teacher):
    captioner = load(teacher)
    with pytest.raises(ConfigError, match="at least two"):
        Ensemble([captioner])
    with pytest.raises(ConfigError, match="one vocabulary"):
        Ensemble([captioner, student_of(captioner, -1)])
    with pytest.raises(ConfigError, match="not of 32 and 64"):
        Ensemble([captioner, student_of(captioner, size=64)])


# Features


def test_what_an_encoder_sees_is_compared_with_the_teachers(teacher):
    student, pixels = load(teacher).train(), torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        next(student.encoder.parameters()).mul_(0.5)
    batch = Batch(pixels, torch.tensor([[[2, 5, 3]], [[2, 6, 3]]]), np.arange(2))
    mine, theirs = student.encode(pixels).grid, load(teacher).encode(pixels).grid
    expected = ((mine - theirs) ** 2).mean() / (theirs**2).mean()
    options = Distillation("x", weight=0.0, features=0.3)
    loss = KnowledgeDistillation(options, load(teacher))(student, batch)
    assert loss.facts["features"] == pytest.approx(expected.item(), rel=1e-4)
    assert loss.mean.item() == pytest.approx(loss.facts["cross_entropy"] + 0.3 * expected.item(), rel=1e-4)
    assert not student.encoder._forward_hooks
    loss.mean.backward()
    assert next(student.encoder.parameters()).grad.abs().sum() > 0


def test_grids_that_cannot_be_compared_are_refused(teacher):
    captioner = load(teacher)
    options = Distillation(str(teacher), features=1.0)
    with pytest.raises(ConfigError, match="compares encoders"):
        load_teacher(options, captioner, reads_features=True)
    with pytest.raises(ConfigError, match=r"4 cells of .* the recipe's 1 of"):
        load_teacher(options, student_of(captioner, stride=32), reads_features=False)


def test_a_recipe_with_all_of_it(teacher, tmp_path):
    options = {"ensemble": (str(teacher),), "features": 0.5, "sequences": 2, "choice": "nearest", "alone": True}
    recipe = with_teacher(teacher, **options)
    recipe = replace(recipe, training=replace(recipe.training, encoder_learning_rate=1e-3))
    run_recipe(recipe, tmp_path / "run", tmp_path / "cache")
    (row, *_) = (json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert {"cross_entropy", "divergence", "features"} <= row.keys()
    assert not (tmp_path / "run" / "taught.json").exists()
