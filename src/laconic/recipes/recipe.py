"""A recipe: from photos to a scored, packed captioner, as one frozen dataclass and one short function.

Recipes are TOML files; every key is also a command-line option. A run lives in a folder: `recipe.json`, `log.jsonl`,
checkpoints while it lasts, `model.safetensors` and `result.json` when it is done.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from laconic import data
from laconic.captioner.accounting import caption_operations, matrices, non_zeros
from laconic.captioner.image_captioner import (
    DecoderConfig,
    EncoderConfig,
    ImageCaptioner,
    ModelConfig,
    load,
    outline,
    save,
)
from laconic.config import expand
from laconic.data import Dataset, Photos
from laconic.data.regions import open_regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.machine.distributed import broadcast, is_writer, writer_first
from laconic.models.captioners import form
from laconic.models.encoders import REGIONS, load_imagenet
from laconic.recipes.folders import MODEL, RESULT, claim, write_json
from laconic.recipes.pruning import GATES, Pruning, first_losses, make_pruner, save_gates
from laconic.text import Vocabulary
from laconic.training.batches import Batches, Source, make_batches
from laconic.training.distillation import Distillation, KnowledgeDistillation, load_teacher
from laconic.training.evaluation import Validator, evaluate
from laconic.training.features import RegionSource, cache_features, cache_pixels
from laconic.training.loop import CrossEntropy, Objective, Progress, Run, best_device
from laconic.training.scst import Scst, SelfCritical
from laconic.training.settings import Training

SPARSE = 0.1  # share of zeros that no dense decoder has


@dataclass(frozen=True)
class DataRecipe:
    """Which images and words.

    Attributes:
        name: a row of laconic.data.DATASETS.
        root: its folder; may use ~ and environment variables.
        regions: folder or file of region features, for the encoder "regions".
        min_count: words rarer than this become <unk>.
        max_length: captions are cut to so many words.
        train: training images used, 0 for all.
        val: validation images used, 0 for all.
    """

    name: str = "flickr8k"
    root: str = ""
    regions: str = ""
    min_count: int = 5
    max_length: int = 18
    train: int = 0
    val: int = 0

    def __post_init__(self) -> None:
        for name, least in {"min_count": 1, "max_length": 1, "train": 0, "val": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"data.{name} = {getattr(self, name)}; give at least {least}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run.

    Attributes:
        initial: a packed captioner to start from (for fine-tuning); empty starts from scratch.
        objective: "cross_entropy" or "scst", which needs `initial`.
        imagenet: .npz file of encoder weights; empty trains the encoder from scratch.
        decoding: of the scores after each epoch, which pick the best one, and of those at the end.
    """

    data: DataRecipe = field(default_factory=DataRecipe)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    imagenet: str = ""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    initial: str = ""
    pruning: Pruning = field(default_factory=Pruning)
    objective: Literal["cross_entropy", "scst"] = "cross_entropy"
    distillation: Distillation = field(default_factory=Distillation)
    scst: Scst = field(default_factory=Scst)
    training: Training = field(default_factory=Training)
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if self.objective == "scst" and not self.initial:
            raise ConfigError('objective = "scst" improves a trained captioner: give its packed file as initial')
        if self.objective == "scst" and self.distillation.teacher:
            raise ConfigError('a teacher is for cross-entropy: leave distillation.teacher out with objective = "scst"')
        if self.encoder.name == REGIONS:
            if not self.data.regions:
                raise ConfigError('encoder.name = "regions" needs data.regions, a folder or file of region features')
            if self.training.mirror:
                raise ConfigError("region features cannot be mirrored: set training.mirror = false")


@dataclass(frozen=True)
class Watcher:
    """How a run is shown: `stage` for feature extraction and evaluation, `progress` for training, `say` for lines."""

    stage: Callable[[str, int, int], None] = lambda *_: None
    progress: Callable[[Progress], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None


def run(
    recipe: Recipe, folder: Path, cache: Path, *, resume: bool = False, watch: Watcher | None = None
) -> dict[str, Any]:
    """Carries a recipe out in `folder`; returns what `result.json` holds.

    A finished run is not repeated. An interrupted one goes on with `resume`.

    Raises:
        TrainingError: where the folder holds another recipe's run, or an interrupted one and `resume` is off.
    """
    watch = watch or Watcher()
    with claim(folder, recipe, resume) if is_writer() else nullcontext() as done:
        finished = broadcast(done)
        if finished is not None:
            watch.say(f"{folder} is finished; nothing to do")
            return finished
        return _carry_out(recipe, folder, cache, resume, watch)


def _carry_out(recipe: Recipe, folder: Path, cache: Path, resume: bool, watch: Watcher) -> dict[str, Any]:
    """Trains, scores and packs in a folder that is this process's own."""
    torch.manual_seed(recipe.training.seed)
    started = time.perf_counter()
    train, val = splits(recipe.data)
    captioner = build(recipe, train).to(best_device())
    objective = make_objective(captioner, recipe, train)  # a teacher that does not fit is found before features are
    with writer_first():
        inputs = open_sources(captioner, recipe, train, val, cache, watch)
    prepared = time.perf_counter() - started
    fitting = make_run(captioner, recipe, objective, inputs, train, val, folder, watch)
    if resume:
        fitting.resume()
    fitting.fit()
    if fitting.pruner is not None:
        fitting.pruner.finalize()
        if is_writer():
            save_gates(fitting.pruner, folder / GATES)
    return broadcast(conclude(fitting, captioner, recipe, inputs, val, prepared, watch) if is_writer() else {})


# Stages


def splits(recipe: DataRecipe) -> tuple[Dataset, Dataset]:
    """Training and validation examples; photos that are missing are found so when they are read."""
    root = expand(recipe.root) if recipe.root else None
    photos: Photos = "none" if recipe.regions else "some"
    train, val = (data.load(recipe.name, root, split, photos=photos) for split in ("train", "val"))
    return _first(train, recipe.train), _first(val, recipe.val)


def build(recipe: Recipe, train: Dataset) -> ImageCaptioner:
    """The captioner before training: vocabulary from the training captions, weights as the recipe says."""
    if recipe.initial:
        captioner = load(expand(recipe.initial))
        if captioner.config.encoder != recipe.encoder:
            raise ConfigError(
                f"{recipe.initial}: has encoder {captioner.config.encoder}, the recipe asks for {recipe.encoder}"
            )
        held, asked = captioner.config.decoder, recipe.decoder
        if form(held.name, held.options) != form(asked.name, asked.options):
            raise ConfigError(f"{recipe.initial}: has decoder {held}, the recipe asks for {asked}")
        fresh = ImageCaptioner(ModelConfig(recipe.encoder, asked), captioner.vocabulary)
        fresh.load_state_dict(captioner.state_dict())
        captioner = fresh
        _check_stays_sparse(captioner, recipe)
    else:
        captions = (c for i in range(len(train)) for c in train[i].captions)
        length = recipe.data.max_length
        vocabulary = Vocabulary.build(captions, recipe.data.min_count, max_length=length)
        config = ModelConfig(recipe.encoder, recipe.decoder)
        outline(config, vocabulary)  # before memory is taken
        captioner = ImageCaptioner(config, vocabulary)
        if recipe.imagenet:
            load_imagenet(captioner.encoder, expand(recipe.imagenet))
    captioner.encoder.requires_grad_(recipe.training.encoder_learning_rate > 0)
    return captioner


def _check_stays_sparse(captioner: ImageCaptioner, recipe: Recipe) -> None:
    """ConfigError where training would fill up a sparse part because nothing masks it."""
    pruning, rates = recipe.pruning, recipe.training
    masked = "" if pruning.method == "none" else pruning.where
    counted = non_zeros(captioner)
    for part, rate in (("decoder", rates.learning_rate), ("encoder", rates.encoder_learning_rate)):
        weights = counted[f"{part}_weights"]
        zeros = 1 - counted[part] / weights if weights else 0.0
        if rate > 0 and zeros > SPARSE and masked not in ("all", part):
            raise ConfigError(
                f"{recipe.initial}: {zeros:.0%} of its {part} is zero, and training would fill it up; to keep it "
                f'sparse set pruning.method = "frozen" with pruning.where = "all" or "{part}", or, beside another '
                f'method with pruning.where = "all", pruning.freeze = "{part}"'
            )


def encoder_changes(recipe: Recipe) -> bool:
    """Whether the encoder's features change in training: by its weights or by its masks."""
    pruning = recipe.pruning
    moving = pruning.method not in ("none", "frozen") or (pruning.method == "frozen" and bool(pruning.ticket))
    masked = pruning.where != "decoder" and pruning.freeze not in ("all", "encoder")
    return recipe.training.encoder_learning_rate > 0 or (moving and masked)


def open_sources(
    captioner: ImageCaptioner, recipe: Recipe, train: Dataset, val: Dataset, cache: Path, watch: Watcher
) -> dict[str, Source]:
    """Inputs of the training ("train", with mirror images where asked for) and of the validation ("val")."""
    return {
        "train": open_source(captioner, recipe, train, cache, recipe.training.mirror, "train", watch),
        "val": open_source(captioner, recipe, val, cache, False, "val", watch),
    }


def open_source(
    captioner: ImageCaptioner,
    recipe: Recipe,
    examples: Dataset,
    cache: Path,
    mirror: bool,
    name: str,
    watch: Watcher,
) -> Source:
    """Cached features where the encoder stays as it is, cached pixels where it changes."""
    config = captioner.config.encoder

    def progress(done: int, of: int) -> None:
        watch.stage(f"{name} {'photos' if encoder_changes(recipe) else 'features'}", done, of)

    if config.name == REGIONS:
        regions = open_regions(expand(recipe.data.regions), config.channels, captioner.needs_boxes)
        return RegionSource.of(examples, regions)
    if encoder_changes(recipe):
        return cache_pixels(examples, config.size, cache, progress)
    return cache_features(captioner.encoder, config, examples, cache, mirror=mirror, progress=progress)


def training_batches(recipe: Recipe, source: Source, train: Dataset, vocabulary: Vocabulary) -> Batches:
    """Batches over all captions of each image."""
    settings = recipe.training
    return make_batches(
        source,
        [train[i].captions for i in range(len(train))],
        vocabulary,
        max_length=recipe.data.max_length,
        size=settings.batch,
        seed=settings.seed,
        mirror=settings.mirror,
        captions_each=settings.captions,
    )


def make_run(
    captioner: ImageCaptioner,
    recipe: Recipe,
    objective: Objective,
    inputs: Mapping[str, Source],
    train: Dataset,
    val: Dataset,
    folder: Path,
    watch: Watcher,
) -> Run:
    """The training run of a recipe: batches, masks and objective put together."""
    batches = training_batches(recipe, inputs["train"], train, captioner.vocabulary)
    losses = first_losses(captioner, batches, recipe.training.label_smoothing)
    return Run(
        captioner,
        batches,
        recipe.training,
        folder,
        objective=objective,
        pruner=make_pruner(captioner, recipe.pruning, recipe.training.epochs * len(batches), losses),
        validate=Validator.of(inputs["val"], val, recipe.decoding),
        show=watch.progress,
    )


def make_objective(captioner: ImageCaptioner, recipe: Recipe, train: Dataset) -> Objective:
    """What the recipe has the captioner learn; a teacher is read from its file."""
    if recipe.objective == "scst":
        return SelfCritical(recipe.scst, [train[i].captions for i in range(len(train))], captioner.vocabulary)
    smoothing, options = recipe.training.label_smoothing, recipe.distillation
    if not options.teacher:
        return CrossEntropy(smoothing)
    teacher = load_teacher(expand(options.teacher), captioner, reads_features=not encoder_changes(recipe))
    return KnowledgeDistillation(options, teacher, smoothing)


def conclude(
    fitting: Run,
    captioner: ImageCaptioner,
    recipe: Recipe,
    inputs: Mapping[str, Source],
    val: Dataset,
    prepared: float,
    watch: Watcher,
) -> dict[str, Any]:
    """Scores and packs what was trained; writes and returns the result, and removes the checkpoints."""
    folder = fitting.folder
    result = {
        **score_and_pack(captioner, recipe, inputs["val"], val, folder, watch),
        "best": fitting.best,
        "skipped": [skipped.reason for source in inputs.values() for skipped in source.skipped],
    }
    result["seconds"] |= {"features": round(prepared, 1), "training": round(fitting.seconds, 1)}
    write_json(folder / RESULT, result)
    for checkpoint in (fitting.last, fitting.best_path):  # model.safetensors replaces them
        checkpoint.unlink(missing_ok=True)
    return result


def score_and_pack(
    captioner: ImageCaptioner, recipe: Recipe, source: Source, val: Dataset, folder: Path, watch: Watcher
) -> dict[str, Any]:
    """Writes captions.json and model.safetensors; gives scores, what they cost, and the seconds of scoring."""
    started = time.perf_counter()
    scores, captions = evaluate(
        captioner,
        source,
        val,
        recipe.decoding,
        progress=lambda done, of: watch.stage("scoring", done, of),
    )
    seconds = round(time.perf_counter() - started, 1)
    captioner.cpu()
    write_json(folder / "captions.json", [{"image_id": k, "caption": v} for k, v in captions.items()])
    model = folder / MODEL
    return {
        "scores": dict(scores),
        "bytes": save(captioner, model, "exact", scores=dict(scores)),
        "non_zeros": non_zeros(captioner),  # after packing, which folds batch norms: what the file holds
        "matrices": matrices(model),
        "operations": asdict(caption_operations(captioner)),
        "seconds": {"scoring": seconds},
    }


def _first(examples: Dataset, count: int) -> Dataset:
    return [examples[i] for i in range(min(count, len(examples)))] if count else examples
