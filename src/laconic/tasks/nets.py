"""The net that a task begins with: read from a folder, checked against the recipe, and kept in a folder again."""

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from laconic import hf
from laconic.config import expand
from laconic.errors import ConfigError, printable
from laconic.hf.pixels import image_processor
from laconic.tasks.images import Images, Shape
from laconic.tasks.settings import ModelRecipe, SlimRecipe, TaskOptions

Tokenizer = Any  # of transformers, whose types say little


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


def open_folder(recipe: SlimRecipe, classes: Collection[str]) -> nn.Module:
    """The net in `model.initial`. ConfigError where it is of none of the classes, FormatError as hf.from_pretrained."""
    folder = expand(recipe.model.initial)
    net = hf.from_pretrained(folder)
    if type(net).__name__ not in classes:
        raise ConfigError(
            f"model.initial = {printable(folder)} holds a {type(net).__name__}; the task {recipe.task!r} needs a "
            f"{' or a '.join(classes)}"
        )
    return net


def images_of(model: ModelRecipe, net: nn.Module) -> ModelRecipe:
    """The recipe with the images that the vision tower of a folder reads.

    Raises ConfigError where it reads features and the recipe names no encoder, or anything else than the recipe gives.
    """
    config = _vision(net)
    channels = getattr(config, "num_channels", 3)
    if not model.encoder and channels != 3:
        raise ConfigError(
            f"{printable(model.initial)}: its vision tower reads features of {channels} channels, no pixels: name "
            "their encoder as model.encoder"
        )
    if not model.encoder:
        model = replace(model, image=config.image_size, patch=config.patch_size)
    given, expected = Shape.of(model), Shape(channels, config.image_size, config.patch_size)
    if given != expected:
        raise ConfigError(
            f"{printable(model.initial)}: its vision tower reads {expected} and the recipe gives {given}: set "
            "model.encoder, image and stride as when the model was trained"
        )
    return model


def check_classes(model: ModelRecipe, net: nn.Module, classes: int) -> None:
    """ConfigError where a folder's model tells other classes apart than the data has."""
    config: Any = net.config
    if config.num_labels != classes:
        raise ConfigError(
            f"{printable(model.initial)}: has {config.num_labels} classes and the data {classes}; give a model of the "
            "same classes, in the same order"
        )


def save_folder(net: nn.Module, folder: Path, images: Images, tokenizer: Tokenizer | None = None) -> None:
    """Writes a Hugging Face folder with its tokenizer, and an image processor where the model reads pixels."""
    processor = image_processor(images.shape.side, images.pixels) if images.shape.channels == 3 else None
    hf.save_pretrained(net, folder, tokenizer=tokenizer, processor=processor)


def _vision(net: nn.Module) -> Any:
    config: Any = net.config
    return getattr(config, "vision_config", config)
