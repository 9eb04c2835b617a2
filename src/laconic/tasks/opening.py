"""Opens what captioning and retrieval start from: model, tokenizer, and both splits; and keeps a model with both.

The tokenizer is that of the folder that the model comes from; that of a fresh model is learned from the training
captions.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from laconic.config import expand
from laconic.errors import ConfigError, FormatError, printable
from laconic.tasks.captioned import Captioned, Report, Tokenizer, open_captioned, open_examples
from laconic.tasks.images import PIXELS, Images
from laconic.tasks.settings import ModelRecipe, SlimRecipe, TaskOptions

Fresh = Callable[[ModelRecipe, Images, Tokenizer], nn.Module]


@dataclass(frozen=True, eq=False)
class Opened:
    """What a task over captioned images works with."""

    net: nn.Module
    tokenizer: Tokenizer
    train: Captioned
    val: Captioned


def open_all(recipe: SlimRecipe, cache: Path, report: Report, fresh: Fresh, classes: Collection[str]) -> Opened:
    """Opens all that a recipe names.

    Args:
        report: told about images that are read for the first time.
        fresh: makes a model where the recipe names no folder; its first weights follow from training.seed.
        classes: of which a folder's model may be.

    Raises:
        ConfigError: a model for another task or for other images than the recipe's, or data for another task.
        DataError: data that cannot be used.
        FormatError: a folder without a tokenizer.
    """
    net: nn.Module | None = None
    if recipe.model.initial:
        net, tokenizer = _from_folder(recipe, classes)
        recipe = replace(recipe, model=_images_of(recipe.model, net))
    else:
        tokenizer = _learned_tokenizer(recipe)
    train, val = (open_captioned(recipe, split, tokenizer, cache, report) for split in ("train", "val"))
    if net is None:
        torch.manual_seed(recipe.training.seed)
        net = fresh(recipe.model, train.images, tokenizer)
    _check_images(net, train.images)
    return Opened(net, tokenizer, train, val)


def _learned_tokenizer(recipe: SlimRecipe) -> Tokenizer:
    from laconic.hf.tokens import make_tokenizer

    examples = open_examples(recipe, "train")
    texts = (caption for row in range(len(examples)) for caption in examples[row].captions)
    return make_tokenizer([*texts, recipe.options.prompt], recipe.model.vocabulary)


def _from_folder(recipe: SlimRecipe, classes: Collection[str]) -> tuple[nn.Module, Tokenizer]:
    from laconic import hf

    folder = expand(recipe.model.initial)
    net = hf.from_pretrained(folder)
    if type(net).__name__ not in classes:
        raise ConfigError(
            f"model.initial = {printable(folder)} holds a {type(net).__name__}; the task {recipe.task!r} needs a "
            f"{' or a '.join(classes)}"
        )
    return net, read_tokenizer(folder)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder. FormatError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{printable(folder)}: no tokenizer can be read there ({' '.join(str(error).split())[:200]}); save the "
            "model's own beside it, with tokenizer.save_pretrained(folder)"
        ) from error


def _images_of(model: ModelRecipe, net: Any) -> ModelRecipe:
    """The recipe with the images that the vision tower of a folder reads."""
    config = net.config.vision_config
    if model.encoder:
        return model
    if getattr(config, "num_channels", 3) != 3:
        raise ConfigError(
            f"{printable(model.initial)}: its vision tower reads features of {config.num_channels} channels, no "
            "pixels: name their encoder as model.encoder"
        )
    return replace(model, image=config.image_size, patch=config.patch_size)


def _check_images(net: Any, images: Images) -> None:
    config = net.config.vision_config
    expected = getattr(config, "num_channels", 3), config.image_size, config.patch_size
    given = images.channels, images.side, images.patch
    if expected != given:
        raise ConfigError(
            f"the vision tower reads images of (channels, side, patch) = {expected} and the recipe gives {given}: set "
            "model.encoder, image, stride and patch as when the model was trained"
        )


def check_recipe(recipe: SlimRecipe, *, kinds: Collection[str], options: Collection[str]) -> None:
    """ConfigError for a kind of model or an option that the task does not have."""
    kind = recipe.model.kind
    if kind and kind not in kinds:
        raise ConfigError(
            f"model.kind = {kind!r} is not for the task {recipe.task!r}; choose {' or '.join(kinds)}, or leave it out"
        )
    usual = TaskOptions()
    for each in fields(TaskOptions):
        value = getattr(recipe.options, each.name)
        if each.name not in options and value != getattr(usual, each.name):
            raise ConfigError(f"options.{each.name} = {value!r} is not for the task {recipe.task!r}; leave it out")


def save_folder(net: nn.Module, folder: Path, tokenizer: Tokenizer, images: Images) -> None:
    """Writes a Hugging Face folder with its tokenizer, and an image processor where the model reads pixels."""
    from laconic import hf

    processor = pixel_processor(images.side) if images.channels == 3 else None
    hf.save_pretrained(net, folder, tokenizer=tokenizer, processor=processor)


def pixel_processor(side: int) -> Any:
    """An image processor that does as laconic.tasks.images does: a square of `side`, mapped to -1..1."""
    from transformers import BlipImageProcessorPil

    mean, scale = ([value / 255 for value in values] for values in (PIXELS.mean, PIXELS.scale))
    return BlipImageProcessorPil(size={"height": side, "width": side}, image_mean=mean, image_std=scale)
