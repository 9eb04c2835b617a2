"""What tasks that read a text beside images share: words, and the net that they begin with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from laconic.config import expand
from laconic.data import Dataset
from laconic.errors import ConfigError, printable
from laconic.tasks.images import Images, open_images, shape_of
from laconic.tasks.opening import read_tokenizer
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.table import Show

SCENES = "scenes"
LONGEST = 40  # tokens of a text; longer ones are cut

Fresh = Callable[[ModelRecipe, Images, Any], nn.Module]
OpenImages = Callable[[Dataset, str, Path, Show], Images]


@dataclass(frozen=True, eq=False)
class Words:
    """A tokenizer of transformers."""

    tokenizer: Any

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, int64 (texts, longest), padded at the end."""
        found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]


def square(recipe: SlimRecipe) -> int:
    """The side at which scenes are painted: that at which they are read."""
    return recipe.model.image


def open_net(
    recipe: SlimRecipe, texts: Sequence[str], fresh: Fresh, class_name: str
) -> tuple[nn.Module, Words, OpenImages]:
    """The net of a recipe, its words, and what opens images as it reads them.

    Args:
        texts: of the training, of which a fresh model's tokenizer is made.
        fresh: makes a model, whose first weights follow from training.seed.
        class_name: of the model that a folder must hold.

    Raises:
        ConfigError: a folder with another model, or for other images than the recipe's.
    """
    from laconic import hf

    model = recipe.model

    def images(examples: Dataset, split: str, cache: Path, show: Show) -> Images:
        return open_images(examples, model, cache, progress=lambda done, of: show(f"images of {split}", done, of))

    if not model.initial:
        tokenizer = hf.make_tokenizer(texts, model.vocabulary)
        torch.manual_seed(recipe.training.seed)
        return fresh(model, shape_of(model), tokenizer), Words(tokenizer), images
    folder = expand(model.initial)
    net = hf.from_pretrained(folder)
    if type(net).__name__ != class_name:
        raise ConfigError(
            f"model.initial = {printable(folder)} holds a {type(net).__name__}; {recipe.task} needs a {class_name}"
        )
    vision: Any = getattr(net.config, "vision_config", None)
    if not model.encoder:
        model = replace(model, image=vision.image_size, patch=vision.patch_size)
    given, expected = shape_of(model), (getattr(vision, "num_channels", 3), vision.image_size, vision.patch_size)
    if (given.channels, given.side, given.patch) != expected:
        raise ConfigError(
            f"the vision tower reads images of (channels, side, patch) = {expected} and the recipe gives "
            f"{(given.channels, given.side, given.patch)}: set model.encoder, image, stride and patch as when the "
            "model was trained"
        )
    return net, Words(read_tokenizer(folder)), images
