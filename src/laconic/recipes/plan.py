"""From a recipe to a Plan: paths, configurations and the method resolved once, on this machine.

    plan(recipe, place) -> Plan        # reads data and weights, builds captioner, objective and method
    run(plan)                          # laconic.recipes.run: carries it out

A mistake in a recipe is found here, before anything long begins. Most of them `check` finds without data.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from laconic import store
from laconic.captioner.accounting import non_zeros
from laconic.captioner.ensemble import Ensemble
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.inheriting import inherit
from laconic.captioner.packing import load, outline
from laconic.captioner.unread import lacks_pooled, unread
from laconic.compress.masked.method import Method
from laconic.compress.masked.scored import Scored, check_named
from laconic.compress.quantized.bits import allot_bits
from laconic.compress.sites import Where, prunable
from laconic.config import digest, expand
from laconic.data import DATASETS, Dataset
from laconic.data.regions import RegionStore, open_regions
from laconic.errors import ConfigError, PruningError
from laconic.models.encoders import load_imagenet
from laconic.recipes.beginning import check_encoder, check_initial
from laconic.recipes.folders import check_ticket
from laconic.recipes.methods import NONE, method_of
from laconic.recipes.recipe import DataRecipe, Part, Recipe
from laconic.recipes.splits import splits
from laconic.spec.model import REGIONS, ModelConfig
from laconic.text import SPECIALS, Vocabulary
from laconic.training.distillation import KnowledgeDistillation, load_teacher
from laconic.training.given import Objective
from laconic.training.loop import CrossEntropy, best_device
from laconic.training.scst import SelfCritical
from laconic.training.settings import Training

SPARSE = 0.1  # share of zeros that no dense decoder has


@dataclass(frozen=True)
class Place:
    """Where a run lives: its folder, the folder of cached images and features that runs share, and whether an
    interrupted run goes on."""

    folder: Path
    cache: Path
    resume: bool = False


@dataclass(frozen=True)
class Masks:
    """Which weights a method masks, and which of them only keep their zeros."""

    method: Method
    where: Where
    freeze: Where


@dataclass(frozen=True)
class Plan:
    """A run ready to be carried out.

    Attributes:
        recipe: values that the steps of a run read as they are: decoding, captions' length.
        place: where it lives.
        train, val: examples to learn from and to score on.
        regions: of a captioner that reads a detector's features.
        captioner: as it is before training, on its device.
        objective: what it is to learn.
        teacher: who teaches it; None where nobody does.
        masks: how it is pruned; None leaves it dense.
        encoder_changes: by its weights, by masks or by steps, so that its features cannot be kept.
        steps: of weights that lie on a grid in the file that the captioner begins with.
        origin: digests of what a checkpoint belongs to.
    """

    recipe: Recipe
    place: Place
    train: Dataset
    val: Dataset
    regions: RegionStore | None
    captioner: ImageCaptioner
    objective: Objective
    teacher: ImageCaptioner | Ensemble | None
    masks: Masks | None
    encoder_changes: bool
    steps: dict[str, float]
    origin: dict[str, str]

    @property
    def training(self) -> Training:
        return self.recipe.training


def plan(recipe: Recipe, place: Place) -> Plan:
    """Reads what the recipe names and builds what it asks for; seeds torch, so that weights are the recipe's.

    Raises:
        ConfigError, DataError, FormatError: for what cannot be, is not there, or does not fit; naming key or file.
    """
    check(recipe)
    chosen = None if recipe.pruning.method == NONE else method_of(recipe.pruning.method, recipe.pruning.options)
    if chosen is not None and chosen.needs_ticket:
        check_ticket(expand(str(recipe.pruning.options["ticket"])), recipe)
    changes = encoder_changes(recipe, chosen)
    torch.manual_seed(recipe.training.seed)
    train, val = splits(recipe.data)
    captioner = build(recipe, train).to(best_device())
    teacher = load_teacher(recipe.distillation, captioner, reads_features=not changes)
    return Plan(
        recipe=recipe,
        place=place,
        train=train,
        val=val,
        regions=_regions(captioner, recipe.data),
        captioner=captioner,
        objective=_objective(captioner, recipe, train, teacher),
        teacher=teacher,
        masks=None if chosen is None else _masks(chosen, captioner, recipe),
        encoder_changes=changes,
        steps=_steps(recipe),
        origin=_origin(captioner, train),
    )


def check(recipe: Recipe, where: str = "") -> None:
    """ConfigError at `where` for a data set, encoder, captioner, option, pruning or quantisation that is not possible.

    Reads no file, and builds the captioner without memory.
    """
    pruning, place = recipe.pruning, f"{where}: " if where else ""
    if recipe.data.name not in DATASETS:
        raise ConfigError(f"{place}no data set {recipe.data.name!r}; there are {', '.join(DATASETS)}")
    try:
        captioner = outline(ModelConfig(recipe.encoder, recipe.decoder), Vocabulary(SPECIALS))
        if recipe.quantization.table:
            shapes = {name: tuple(getattr(*sites[0]).shape) for name, sites in prunable(captioner).items()}
            allot_bits(shapes, recipe.quantization.table)
        if pruning.method != NONE:
            _check_method(method_of(pruning.method, pruning.options), captioner, recipe)
    except (ConfigError, PruningError) as error:
        raise ConfigError(f"{place}{error}") from None


def _check_method(method: Method, captioner: ImageCaptioner, recipe: Recipe) -> None:
    """ConfigError, PruningError where a method asks for weights that are not there, or do not learn."""
    pruning, rates = recipe.pruning, recipe.training
    names = prunable(captioner, part(pruning.where))
    if isinstance(method, Scored):
        check_named(method.parts, names)
    kept = part(pruning.freeze)
    for each, rate in (("encoder", rates.encoder_learning_rate), ("decoder", rates.learning_rate)):
        ranked = [
            name for name, sites in names.items() if name.startswith(f"{each}.") and not kept(name, getattr(*sites[0]))
        ]
        if method.needs_moments and not rate and ranked:
            key = "encoder_learning_rate" if each == "encoder" else "learning_rate"
            raise ConfigError(
                f"pruning.method = {pruning.method!r} ranks weights by how they learn, and the {each} stays as it is: "
                f"set training.{key} above 0, or leave the {each} out with pruning.where"
            )


def build(recipe: Recipe, train: Dataset) -> ImageCaptioner:
    """The captioner before training: vocabulary from the training captions, weights as the recipe says."""
    if recipe.initial:
        captioner = _initial(recipe)
    elif recipe.inherit:
        captioner = _inherited(recipe)
    else:
        captioner = _fresh(recipe, train)
    captioner.encoder.requires_grad_(recipe.training.encoder_learning_rate > 0)
    return captioner


def part(name: Part) -> Where:
    """Predicate over the weights of a part of an ImageCaptioner."""
    if name == "none":
        return lambda *_: False
    prefix = "" if name == "all" else f"{name}."
    return lambda weight, _: weight.startswith(prefix)


def _fresh(recipe: Recipe, train: Dataset) -> ImageCaptioner:
    captions = (c for i in range(len(train)) for c in train[i].captions)
    length = recipe.data.max_length
    vocabulary = Vocabulary.build(captions, recipe.data.min_count, max_length=length, base=recipe.data.radix)
    config = ModelConfig(recipe.encoder, recipe.decoder)
    outline(config, vocabulary)  # before memory is taken
    captioner = ImageCaptioner(config, vocabulary)
    if recipe.encoder_from:
        _copy_encoder(captioner, recipe)
    elif recipe.imagenet:
        load_imagenet(captioner.encoder, expand(recipe.imagenet))
    return captioner


def _copy_encoder(captioner: ImageCaptioner, recipe: Recipe) -> None:
    seen = load(expand(recipe.encoder_from))
    check_encoder(seen.spec, recipe, recipe.encoder_from)
    if captioner.reads_pooled and lacks_pooled(seen):
        raise ConfigError(
            f"{recipe.encoder_from}: its {seen.config.decoder.name} reads the grid alone, and what was behind it "
            f"was left out in packing; {recipe.decoder.name} reads it; give an exact file, or another encoder"
        )
    captioner.encoder.load_state_dict(seen.encoder.state_dict())
    _check_stays_sparse(captioner, recipe)


def _initial(recipe: Recipe) -> ImageCaptioner:
    captioner = load(expand(recipe.initial))
    check_initial(captioner.spec, recipe, recipe.initial)
    fresh = ImageCaptioner(ModelConfig(recipe.encoder, recipe.decoder), captioner.vocabulary)
    fresh.load_state_dict(captioner.state_dict())
    _check_stays_sparse(fresh, recipe)
    return fresh


def _inherited(recipe: Recipe) -> ImageCaptioner:
    larger = load(expand(recipe.inherit))
    config, vocabulary = ModelConfig(recipe.encoder, recipe.decoder), larger.vocabulary
    if recipe.data.radix != vocabulary.base:
        vocabulary = replace(vocabulary, base=recipe.data.radix)
    outline(config, vocabulary)  # before memory is taken
    captioner = ImageCaptioner(config, vocabulary)
    inherit(captioner, larger)
    _check_stays_sparse(captioner, recipe)
    return captioner


def _check_stays_sparse(captioner: ImageCaptioner, recipe: Recipe) -> None:
    """ConfigError where training would fill up a sparse part because nothing masks it."""
    pruning, rates = recipe.pruning, recipe.training
    masked = "" if pruning.method == NONE else pruning.where
    file = recipe.initial or recipe.inherit or recipe.encoder_from
    counted = non_zeros(captioner)
    if lacks_pooled(captioner):  # what no loss reaches stays as it is
        counted["encoder_weights"] -= sum(captioner.get_parameter(name).numel() for name in unread(captioner))
    for part, rate in (("decoder", rates.learning_rate), ("encoder", rates.encoder_learning_rate)):
        weights = counted[f"{part}_weights"]
        zeros = 1 - counted[part] / weights if weights else 0.0
        if rate > 0 and zeros > SPARSE and masked not in ("all", part):
            raise ConfigError(
                f"{file}: {zeros:.0%} of its {part} is zero, and training would fill it "
                f'up; to keep it sparse set pruning.method = "frozen" with pruning.where = "all" or "{part}", or, '
                f'beside another method with pruning.where = "all", pruning.freeze = "{part}"'
            )


def _steps(recipe: Recipe) -> dict[str, float]:
    """Those of the file that the captioner begins with: all of `initial`, the encoder's of others."""
    file = recipe.initial or recipe.inherit or recipe.encoder_from
    steps = store.load(expand(file)).steps if file else {}
    return {name: step for name, step in steps.items() if recipe.initial or name.startswith("encoder.")}


def encoder_changes(recipe: Recipe, method: Method | None) -> bool:
    """Whether the encoder's features change in training: by its weights, by its masks or by their steps."""
    masked = recipe.pruning.where != "decoder" and recipe.pruning.freeze not in ("all", "encoder")
    learns = recipe.training.encoder_learning_rate > 0 or recipe.quantization.reaches("encoder")
    return learns or (method is not None and method.moves_masks and masked)


def _objective(
    captioner: ImageCaptioner, recipe: Recipe, train: Dataset, teacher: ImageCaptioner | Ensemble | None
) -> Objective:
    """What the recipe has the captioner learn."""
    if recipe.objective == "scst":
        return SelfCritical(recipe.scst, [train[i].captions for i in range(len(train))], captioner.vocabulary)
    smoothing = recipe.training.label_smoothing
    if teacher is None:
        return CrossEntropy(smoothing)
    return KnowledgeDistillation(recipe.distillation, teacher, smoothing)


def _regions(captioner: ImageCaptioner, recipe: DataRecipe) -> RegionStore | None:
    config = captioner.config.encoder
    if config.name != REGIONS:
        return None
    return open_regions(expand(recipe.regions), config.channels, captioner.needs_boxes)


def _masks(method: Method, captioner: ImageCaptioner, recipe: Recipe) -> Masks:
    where, freeze = part(recipe.pruning.where), part(recipe.pruning.freeze)
    return Masks(method.resolve(captioner, where, freeze), where, freeze)


def _origin(captioner: ImageCaptioner, train: Dataset) -> dict[str, str]:
    captions = ((str(train[i].id), train[i].captions) for i in range(len(train)))
    vocabulary = captioner.vocabulary
    words = [*vocabulary.words, f"spelled to the base {vocabulary.base}"] if vocabulary.base else vocabulary.words
    return {"vocabulary": digest(words), "set of training captions": digest(list(captions))}
