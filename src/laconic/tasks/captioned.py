"""Images with their captions as token ids: what captioning and retrieval learn from."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.config import expand
from laconic.data import Dataset, load
from laconic.errors import ConfigError, DataError
from laconic.tasks.images import Images, open_images
from laconic.tasks.nets import Tokenizer
from laconic.tasks.settings import SlimRecipe
from laconic.tasks.supply import Shuffled, moved
from laconic.tasks.table import Show

DATA = ("flickr8k", "flickr30k", "coco", "captions", "scenes")
LONGEST = 40  # tokens of a caption, special ones included; longer ones are cut


@dataclass(frozen=True)
class CaptionedBatch:
    """What one step learns from.

    Attributes:
        pixels: float32 (n, channels, side, side).
        tokens: int64 (m, longest), padded.
        lengths: int64 (m,), tokens of each caption that are no padding.
        image_of: int64 (m,), the image of each caption, 0 to n - 1.
        rows: int64 (n,), row of each image in the data set.
    """

    pixels: Tensor
    tokens: Tensor
    lengths: Tensor
    image_of: Tensor
    rows: Tensor

    @property
    def count(self) -> int:
        """Images."""
        return len(self.rows)

    @property
    def mask(self) -> Tensor:
        """int64 (m, longest), 1 where there is a token."""
        return (torch.arange(self.tokens.shape[1], device=self.lengths.device) < self.lengths[:, None]).long()

    def to(self, device: torch.device) -> "CaptionedBatch":
        return moved(self, device)


@dataclass(frozen=True, eq=False)
class Captioned:
    """One split of a captioned data set.

    Attributes:
        examples: all of them.
        images: by row of `examples`.
        rows: int64, those that can be read and have captions.
        tokens: int32 (captions, longest), captions of all examples in their order, padded.
        lengths: int64 (captions,).
        first: int64 (examples + 1,); captions first[r] to first[r + 1] are of example r.
    """

    examples: Dataset
    images: Images
    rows: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    first: np.ndarray

    def captions_of(self, row: int) -> tuple[str, ...]:
        """The captions of an example, as written."""
        return self.examples[int(row)].captions

    def batch(
        self, rows: np.ndarray, rng: np.random.Generator | None = None, *, captions: int = 0, mirror: bool = False
    ) -> CaptionedBatch:
        """Some images with their captions.

        Args:
            rows: among `self.rows`.
            rng: draws captions and mirrored images; not needed where neither is drawn.
            captions: of each image, drawn without repetition; 0 for all.
            mirror: flips images left to right with probability one half.
        """
        mirrored = rng.random(len(rows)) < 0.5 if mirror and rng is not None else None
        words = self.texts(rows, rng if captions else None, captions)
        return replace(words, pixels=self.images.batch(rows, mirrored))

    def texts(self, rows: np.ndarray, rng: np.random.Generator | None = None, captions: int = 0) -> CaptionedBatch:
        """`batch` without pixels, of which there are none for each image."""
        chosen = [np.arange(self.first[row], self.first[row + 1]) for row in rows]
        if captions and rng is not None:
            chosen = [rng.permutation(some)[:captions] for some in chosen]
        picked = np.concatenate(chosen)
        lengths = self.lengths[picked]
        return CaptionedBatch(
            torch.empty(len(rows), 0),
            torch.from_numpy(self.tokens[picked, : lengths.max()].astype(np.int64)),
            torch.from_numpy(lengths),
            torch.from_numpy(np.repeat(np.arange(len(rows)), [len(some) for some in chosen])),
            torch.from_numpy(np.asarray(rows, np.int64)),
        )

    def supply(self, recipe: SlimRecipe) -> Shuffled[CaptionedBatch]:
        """Training batches as the recipe asks for them."""
        training = recipe.training

        def fetch(rows: np.ndarray, rng: np.random.Generator) -> CaptionedBatch:
            return self.batch(rows, rng, captions=training.captions, mirror=training.mirror)

        return Shuffled(fetch, self.rows, training.batch, training.seed)


def open_captioned(recipe: SlimRecipe, split: str, tokenizer: Tokenizer, cache: Path, show: Show) -> Captioned:
    """Opens the images of a split and encodes their captions, each after options.prompt."""
    examples = open_examples(recipe, split)
    mirror = split == "train" and recipe.training.mirror
    images = open_images(examples, recipe.model, cache, mirror=mirror, progress=partial(show, f"images of {split}"))
    captions = [examples[row].captions for row in range(len(examples))]
    usable = np.array([bool(some) for some in captions], bool) & images.source.valid
    if not usable.any():
        raise DataError(f"{recipe.data.name}, split {split!r}: no image is readable and has captions")
    texts = [f"{recipe.options.prompt} {caption}".strip() for some in captions for caption in some]
    tokens, lengths = encode(tokenizer, texts)
    first = np.concatenate([[0], np.cumsum([len(some) for some in captions])])
    return Captioned(examples, images, np.flatnonzero(usable), tokens, lengths, first)


def open_examples(recipe: SlimRecipe, split: str) -> Dataset:
    """The examples of a split, as many as the recipe says."""
    data = recipe.data
    if data.name not in DATA:
        raise ConfigError(f"data.name = {data.name!r} is not for {recipe.task}; choose one of {', '.join(DATA)}")
    count: int = getattr(data, split)
    if data.name == "scenes":
        options: dict[str, Any] = {"count": count} if count else {}
        return load(data.name, None, split, **options)
    if not data.root:
        raise ConfigError(f"data.name = {data.name!r} lies on disk: give its folder as data.root")
    examples = load(data.name, expand(data.root), split)
    return tuple(examples[row] for row in range(min(count, len(examples)))) if count else examples


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32 (texts, longest), padded, and how many each text has int64 (texts,)."""
    found = tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]
    lengths = np.array([len(ids) for ids in found], np.int64)
    tokens = np.full((len(found), lengths.max()), tokenizer.pad_token_id, np.int32)
    for row, ids in enumerate(found):
        tokens[row, : len(ids)] = ids
    return tokens, lengths
