"""Opens what captioning and retrieval start from: model, tokenizer, and both splits.

The tokenizer is that of the folder that the model comes from; that of a fresh model is learned from the training
captions.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from laconic import hf
from laconic.config import expand
from laconic.hf.tokens import read_tokenizer
from laconic.tasks.captioned import Captioned, open_captioned, open_examples
from laconic.tasks.images import Shape
from laconic.tasks.nets import Tokenizer, images_of, open_folder
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.table import Show

Fresh = Callable[[ModelRecipe, Shape, Tokenizer], nn.Module]


@dataclass(frozen=True, eq=False)
class Opened:
    """What a task over captioned images works with."""

    net: nn.Module
    tokenizer: Tokenizer
    train: Captioned
    val: Captioned


def open_all(recipe: SlimRecipe, cache: Path, show: Show, fresh: Fresh, classes: Collection[str]) -> Opened:
    """Opens all that a recipe names.

    Args:
        show: told about images that are read for the first time.
        fresh: makes a model where the recipe names no folder; its first weights follow from training.seed.
        classes: of which a folder's model may be.

    Raises:
        ConfigError: a model for another task or for other images than the recipe's, or data for another task.
        DataError: data that cannot be used.
        FormatError: a folder without a tokenizer.
    """
    model = recipe.model
    if model.initial:
        net = open_folder(recipe, classes)
        model = images_of(model, net)
        tokenizer = read_tokenizer(expand(model.initial))
    else:
        tokenizer = _learned_tokenizer(recipe)
        torch.manual_seed(recipe.training.seed)
        net = fresh(model, Shape.of(model), tokenizer)
    recipe = replace(recipe, model=model)
    train, val = (open_captioned(recipe, split, tokenizer, cache, show) for split in ("train", "val"))
    return Opened(net, tokenizer, train, val)


def _learned_tokenizer(recipe: SlimRecipe) -> Tokenizer:
    examples = open_examples(recipe, "train")
    texts = (caption for row in range(len(examples)) for caption in examples[row].captions)
    return hf.make_tokenizer([*texts, recipe.options.prompt], recipe.model.vocabulary)
