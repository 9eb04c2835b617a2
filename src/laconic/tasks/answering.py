"""What tasks that read a text beside images share: words, and the net that they begin with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from laconic import hf
from laconic.config import expand
from laconic.data import Dataset
from laconic.hf.tokens import read_tokenizer
from laconic.tasks.captioned import LONGEST
from laconic.tasks.images import Images, Shape, open_images
from laconic.tasks.nets import Tokenizer, images_of, open_folder
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.table import Show

SCENES = "scenes"

Fresh = Callable[[ModelRecipe, Shape, Tokenizer], nn.Module]
Begin = Callable[[nn.Module], nn.Module]
OpenImages = Callable[[Dataset, str, Path, Show], Images]


@dataclass(frozen=True, eq=False)
class Words:
    """A tokenizer of transformers."""

    tokenizer: Tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask, int64 (texts, longest), padded at the end."""
        found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]


def square(recipe: SlimRecipe) -> int:
    """The side at which scenes are painted: that at which they are read."""
    return recipe.model.image


def open_net(
    recipe: SlimRecipe, texts: Sequence[str], fresh: Fresh, begins: Mapping[str, Begin | None]
) -> tuple[nn.Module, Words, OpenImages]:
    """The net of a recipe, its words, and what opens images as it reads them.

    Args:
        texts: of the training, of which a fresh model's tokenizer is made.
        fresh: makes a model, whose first weights follow from training.seed.
        begins: names of the classes that a folder may hold, and what makes the task's net of one; None: it is one.

    Raises:
        ConfigError: a folder with another model, or for other images than the recipe's.
    """
    model = recipe.model
    if model.initial:
        net = open_folder(recipe, begins)
        begin = begins[type(net).__name__]
        net = begin(net) if begin else net
        model, words = images_of(model, net), Words(read_tokenizer(expand(model.initial)))
    else:
        words = Words(hf.make_tokenizer(texts, model.vocabulary))
        torch.manual_seed(recipe.training.seed)
        net = fresh(model, Shape.of(model), words.tokenizer)

    def images(examples: Dataset, split: str, cache: Path, show: Show) -> Images:
        return open_images(examples, model, cache, progress=partial(show, f"images of {split}"))

    return net, words, images
