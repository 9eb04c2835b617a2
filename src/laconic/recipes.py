"""A recipe: from photos to a scored, packed captioner, as one frozen dataclass and one short function.

Recipes are TOML files; every key is also a command-line option. A run lives in a folder: `recipe.json`, `log.jsonl`,
checkpoints while it lasts, `model.safetensors` and `result.json` when it is done.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from laconic import data
from laconic.batches import Batches, PixelCache, Source, make_batches
from laconic.captioner import DecoderConfig, EncoderConfig, ImageCaptioner, ModelConfig, load, save
from laconic.compress.prune import Pruner
from laconic.compress.supermask import Supermask
from laconic.config import differences, expand, from_mapping, to_mapping
from laconic.data import Dataset
from laconic.decode import Decoding
from laconic.errors import ConfigError, TrainingError
from laconic.evaluation import Validator, evaluate
from laconic.features import cache_features
from laconic.files import write_text
from laconic.models.encoders import load_imagenet
from laconic.text import Vocabulary
from laconic.train import Progress, Run, Training, best_device


@dataclass(frozen=True)
class DataRecipe:
    """Which images and words.

    Attributes:
        name: a row of laconic.data.DATASETS.
        root: its folder; may use ~ and environment variables.
        min_count: words rarer than this become <unk>.
        max_length: captions are cut to so many words.
        train: training images used, 0 for all.
        val: validation images used, 0 for all.
    """

    name: str = "flickr8k"
    root: str = ""
    min_count: int = 5
    max_length: int = 18
    train: int = 0
    val: int = 0


@dataclass(frozen=True)
class Pruning:
    """What to prune and how far; see laconic.compress for the options left at None.

    Attributes:
        method: "none" or "supermask".
        sparsity: share of weights to remove.
        where: part of the model.
        weight: of the sparsity loss (lambda).
        learning_rate: of the gates.
        init: initial value of the gates.
    """

    method: Literal["none", "supermask"] = "none"
    sparsity: float = 0.0
    where: Literal["all", "encoder", "decoder"] = "decoder"
    weight: float | None = None
    learning_rate: float | None = None
    init: float = 5.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run.

    Attributes:
        initial: a packed captioner to start from (for fine-tuning); empty starts from scratch.
        imagenet: .npz file of encoder weights; empty trains the encoder from scratch.
    """

    data: DataRecipe = field(default_factory=DataRecipe)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    imagenet: str = ""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    initial: str = ""
    pruning: Pruning = field(default_factory=Pruning)
    training: Training = field(default_factory=Training)
    decoding: Decoding = field(default_factory=Decoding)


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
    finished = claim(folder, recipe, resume)
    if finished is not None:
        watch.say(f"{folder} is finished; nothing to do")
        return finished
    torch.manual_seed(recipe.training.seed)
    started = time.perf_counter()
    train, val = splits(recipe.data)
    captioner = build(recipe, train).to(best_device())
    sources = {"train": (train, recipe.training.mirror), "val": (val, False)}
    inputs = {
        name: open_source(captioner, recipe, examples, cache, mirror, name, watch)
        for name, (examples, mirror) in sources.items()
    }
    prepared = time.perf_counter() - started
    batches = training_batches(recipe, inputs["train"], train, captioner.vocabulary)
    pruner = make_pruner(captioner, recipe.pruning, recipe.training.epochs * len(batches))
    fitting = Run(
        captioner,
        batches,
        recipe.training,
        folder,
        pruner=pruner,
        validate=Validator.of(inputs["val"], val),
        show=watch.progress,
    )
    if resume:
        fitting.resume()
    fitting.fit()
    if pruner is not None:
        pruner.finalize()
    result = {
        **score_and_pack(captioner.cpu(), recipe, inputs["val"], val, folder, watch),
        "best": fitting.best,
        "skipped": [skipped.reason for source in inputs.values() for skipped in source.skipped],
    }
    result["seconds"] |= {"features": round(prepared, 1), "training": round(fitting.seconds, 1)}
    write_json(folder / "result.json", result)
    for name in ("last.pt", "best.pt"):  # model.safetensors replaces them
        (folder / name).unlink(missing_ok=True)
    return result


# Stages


def claim(folder: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """Takes the folder for this recipe; gives the result where the run is already finished."""
    recipe_file, result = folder / "recipe.json", folder / "result.json"
    if recipe_file.exists():
        try:
            held = from_mapping(json.loads(recipe_file.read_text(encoding="utf8")), Recipe, str(recipe_file))
            done = json.loads(result.read_text(encoding="utf8")) if result.exists() else None
            if not isinstance(done, dict | None):
                raise ValueError("not a JSON object")
        except (ValueError, ConfigError) as error:
            raise TrainingError(f"{folder}: damaged run ({error}); give --out another folder") from None
        changed = differences(to_mapping(held), to_mapping(recipe))
        if changed:
            raise TrainingError(
                f"{folder}: holds a run with other settings ({'; '.join(changed[:3])}); give --out another folder"
            )
        if done is not None:
            return done
        if not resume:
            raise TrainingError(
                f"{folder}: holds an unfinished run; continue it with --resume or give --out another folder"
            )
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); give --out another folder") from None
    write_json(recipe_file, to_mapping(recipe))
    return None


def splits(recipe: DataRecipe) -> tuple[Dataset, Dataset]:
    """Training and validation examples."""
    root = expand(recipe.root) if recipe.root else None
    train, val = (data.load(recipe.name, root, split) for split in ("train", "val"))
    return _first(train, recipe.train), _first(val, recipe.val)


def build(recipe: Recipe, train: Dataset) -> ImageCaptioner:
    """The captioner before training: vocabulary from the training captions, weights as the recipe says."""
    if recipe.initial:
        captioner = load(expand(recipe.initial))
        if captioner.config.encoder != recipe.encoder:
            raise ConfigError(
                f"{recipe.initial}: has encoder {captioner.config.encoder}, the recipe asks for {recipe.encoder}"
            )
        fresh = ImageCaptioner(ModelConfig(recipe.encoder, recipe.decoder), captioner.vocabulary)
        try:
            fresh.load_state_dict(captioner.state_dict())
        except RuntimeError:
            raise ConfigError(
                f"{recipe.initial}: has decoder {captioner.config.decoder}, the recipe asks for {recipe.decoder}"
            ) from None
        captioner = fresh
    else:
        captions = (c for i in range(len(train)) for c in train[i].captions)
        length = recipe.data.max_length
        vocabulary = Vocabulary.build(captions, recipe.data.min_count, max_length=length)
        captioner = ImageCaptioner(ModelConfig(recipe.encoder, recipe.decoder), vocabulary)
        if recipe.imagenet:
            load_imagenet(captioner.encoder, expand(recipe.imagenet))
    captioner.encoder.requires_grad_(recipe.training.encoder_learning_rate > 0)
    return captioner


def open_source(
    captioner: ImageCaptioner,
    recipe: Recipe,
    examples: Dataset,
    cache: Path,
    mirror: bool,
    name: str,
    watch: Watcher,
) -> Source:
    """Cached features where the encoder is frozen, pixels in memory where it learns."""
    config = captioner.config.encoder
    if recipe.training.encoder_learning_rate > 0:
        return PixelCache.read(examples, config.size)
    return cache_features(
        captioner.encoder,
        config,
        examples,
        cache,
        mirror=mirror,
        progress=lambda done, of: watch.stage(f"{name} features", done, of),
    )


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
    )


def make_pruner(captioner: ImageCaptioner, pruning: Pruning, steps: int) -> Pruner | None:
    """The recipe's pruner, on the part of the model it names."""
    if pruning.method == "none":
        return None
    method = Supermask(
        pruning.sparsity,
        init=pruning.init,
        weight=pruning.weight,
        learning_rate=pruning.learning_rate,
    )
    prefix = "" if pruning.where == "all" else f"{pruning.where}."
    return Pruner(captioner, method, steps=steps, where=lambda name, w: w.requires_grad and name.startswith(prefix))


def score_and_pack(
    captioner: ImageCaptioner, recipe: Recipe, source: Source, val: Dataset, folder: Path, watch: Watcher
) -> dict[str, Any]:
    """Writes captions.json and model.safetensors; gives scores, bytes, non-zeros and the seconds of scoring."""
    started = time.perf_counter()
    scores, captions = evaluate(
        captioner,
        source,
        val,
        recipe.decoding,
        progress=lambda done, of: watch.stage("scoring", done, of),
    )
    seconds = round(time.perf_counter() - started, 1)
    write_json(folder / "captions.json", [{"image_id": k, "caption": v} for k, v in captions.items()])
    packed = save(captioner, folder / "model.safetensors", "exact", scores=dict(scores))
    return {
        "scores": dict(scores),
        "bytes": packed,
        "non_zeros": non_zeros(captioner),  # after packing, which folds batch norms: what the file holds
        "seconds": {"scoring": seconds},
    }


def non_zeros(captioner: ImageCaptioner) -> dict[str, int]:
    """Weights and non-zeros of encoder and decoder, biases included."""
    counts: dict[str, int] = {}
    for part in ("encoder", "decoder"):
        weights = list(captioner.get_submodule(part).parameters())
        counts[part] = sum(int(torch.count_nonzero(w)) for w in weights)
        counts[f"{part}_weights"] = sum(w.numel() for w in weights)
    return counts


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; TrainingError where that fails."""
    try:
        write_text(path, json.dumps(value, indent=1) + "\n")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be written ({error}); free the disk or give --out another") from error


def _first(examples: Dataset, count: int) -> Dataset:
    return [examples[i] for i in range(min(count, len(examples)))] if count else examples
