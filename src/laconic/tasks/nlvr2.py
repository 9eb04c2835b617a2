"""Visual reasoning over two images (NLVR2): is a sentence true of them?

Data: "nlvr2", the published files, or "scenes", sentences about generated scenes. The model is laconic.hf's
BlipForVisualReasoning; the score is the share of right decisions.

A batch is pairs of images with all sentences about them: two images are encoded once for all their sentences. Images
are never mirrored, whatever training.mirror says, since sentences speak of left and right.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic import hf
from laconic.config import expand
from laconic.data import Skipped
from laconic.data.pairs import Pair, Pairs, load_nlvr2
from laconic.data.scene_facts import load_scene_pairs
from laconic.errors import ConfigError
from laconic.tasks.answering import SCENES, Begin, Words, open_net, square
from laconic.tasks.blip import blip_config
from laconic.tasks.images import Images, Shape
from laconic.tasks.nets import check_recipe, save_folder
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.supply import Shuffled, moved
from laconic.tasks.table import Show
from laconic.tasks.task import Learner

DATA = ("nlvr2", SCENES)
OF_ONE_IMAGE = ("BlipForQuestionAnswering", "BlipForImageTextRetrieval")  # which the published model begins with
VALIDATED = 32  # pairs of images at once


@dataclass(frozen=True)
class PairBatch:
    """What one step learns from.

    Attributes:
        pixels: float32 (pairs, 2, channels, side, side).
        words, mask: int64 (n, longest).
        pair_of: int64 (n,), the pair of images of each sentence.
        labels: int64 (n,), 1 for true.
    """

    pixels: Tensor
    words: Tensor
    mask: Tensor
    pair_of: Tensor
    labels: Tensor

    @property
    def count(self) -> int:
        """Pairs of images, which are what a batch has so many of."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "PairBatch":
        """The same on a device."""
        return moved(self, device)


@dataclass(frozen=True, eq=False)
class Split:
    """Pairs of one split, with their images."""

    pairs: Pairs
    images: Images
    words: Words

    @cached_property
    def about(self) -> Sequence[Sequence[Pair]]:
        """Sentences about the same two images together, of images that can be read."""
        valid = self.images.source.valid
        found: dict[tuple[int, int], list[Pair]] = defaultdict(list)
        for pair in self.pairs.items:
            if valid[pair.left] and valid[pair.right]:
                found[pair.left, pair.right].append(pair)
        return list(found.values())

    @property
    def rows(self) -> np.ndarray:
        """int64, places in `about`."""
        return np.arange(len(self.about))

    @property
    def items(self) -> list[Pair]:
        """All their sentences, in the order of `rows`."""
        return [pair for some in self.about for pair in some]

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> PairBatch:
        """Some pairs of images with all their sentences; nothing in it is random."""
        some = [self.about[int(row)] for row in rows]
        seen = np.array([(pairs[0].left, pairs[0].right) for pairs in some])
        chosen = [pair for pairs in some for pair in pairs]
        words, mask = self.words.encode([pair.sentence for pair in chosen])
        return PairBatch(
            self.images.batch(seen.flatten()).unflatten(0, (-1, 2)),
            words,
            mask,
            torch.from_numpy(np.repeat(np.arange(len(rows)), [len(pairs) for pairs in some])),
            torch.tensor([pair.label for pair in chosen]),
        )


class VisualReasoning:
    """The task over two splits."""

    selection = "accuracy"

    def __init__(self, net: nn.Module, train: Split, val: Split, recipe: SlimRecipe) -> None:
        self.net, self.train, self.val = net, train, val
        self.batches = Shuffled(train.batch, train.rows, recipe.training.batch, recipe.training.seed)
        self._smoothing = recipe.training.label_smoothing

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that cannot be read."""
        return (*self.train.images.skipped, *self.val.images.skipped)

    def outputs(self, net: nn.Module, batch: PairBatch) -> Tensor:
        """Logits (n, 2)."""
        model: Any = net
        images = model.vision_model(batch.pixels.flatten(0, 1)).last_hidden_state.unflatten(0, (-1, 2))
        read = model.text_encoder(batch.words, attention_mask=batch.mask, encoder_hidden_states=images[batch.pair_of])
        logits: Tensor = model.cls_head(read.last_hidden_state[:, 0])
        return logits

    def loss(self, outputs: Tensor, batch: PairBatch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(outputs.float(), batch.labels, label_smoothing=self._smoothing)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        """The usual one."""
        return Learner(net, self, teacher, weight, temperature)

    def validate(self, net: nn.Module) -> dict[str, float]:
        """Percentage of right decisions."""
        device, rows, right = next(net.parameters()).device, self.val.rows, 0
        for start in range(0, len(rows), VALIDATED):
            batch = self.val.batch(rows[start : start + VALIDATED]).to(device)
            right += int((self.outputs(net, batch).argmax(-1) == batch.labels).sum())
        return {"accuracy": 100 * right / len(self.val.items)}

    @cached_property
    def _guesses(self) -> Mapping[str, int]:
        """The more frequent label of each sentence in training."""
        seen: dict[str, Counter[int]] = defaultdict(Counter)
        for pair in self.train.pairs.items:
            seen[pair.sentence][pair.label] += 1
        return {sentence: counts.most_common(1)[0][0] for sentence, counts in seen.items()}

    def baselines(self) -> dict[str, float]:
        """Chance, and the label that training gives a sentence most often."""
        usual = Counter(pair.label for pair in self.train.pairs.items).most_common(1)[0][0]
        items = self.val.items
        right = sum(self._guesses.get(pair.sentence, usual) == pair.label for pair in items)
        return {"chance": 50.0, "no image": 100 * right / len(items)}

    def example(self) -> dict[str, Tensor]:
        """One sentence and its two images."""
        batch = self.val.batch(self.val.rows[:1])
        length = int(batch.mask[0].sum())
        return {
            "input_ids": batch.words[:1, :length],
            "attention_mask": batch.mask[:1, :length],
            "pixel_values": batch.pixels,
        }

    def save(self, net: nn.Module, folder: Path) -> None:
        """Model, tokenizer, and image processor where it reads pixels."""
        save_folder(net, folder, self.train.images, self.train.words.tokenizer)


def open_task(recipe: SlimRecipe, cache: Path, show: Show) -> VisualReasoning:
    """The task as a recipe asks for it; raises as laconic.tasks.table.open_task."""
    check_recipe(recipe, kinds=("nlvr2",), options=())
    pairs = {split: _pairs(recipe, split) for split in ("train", "val")}

    def fresh(model: ModelRecipe, shape: Shape, tokenizer: Any) -> nn.Module:
        return hf.fit_channels(hf.BlipForVisualReasoning(blip_config(model, shape, tokenizer, preserve=True)))

    texts = [pair.sentence for pair in pairs["train"].items]
    begins: dict[str, Begin | None] = {
        "BlipForVisualReasoning": None,
        **dict.fromkeys(OF_ONE_IMAGE, hf.with_two_images),
    }
    net, words, images = open_net(recipe, texts, fresh, begins)
    opened = {split: Split(held, images(held.images, split, cache, show), words) for split, held in pairs.items()}
    return VisualReasoning(net, opened["train"], opened["val"], recipe)


def _pairs(recipe: SlimRecipe, split: str) -> Pairs:
    data = recipe.data
    if data.name not in DATA:
        raise ConfigError(f"data.name = {data.name!r} is not for nlvr2; choose one of {', '.join(DATA)}")
    count: int = getattr(data, split)
    if data.name == SCENES:
        return load_scene_pairs(split, count or None, size=square(recipe))
    if not data.root:
        raise ConfigError(f"data.name = {data.name!r} lies on disk: give its folder as data.root")
    pairs = load_nlvr2(expand(data.root), split)
    return pairs.first(count) if count else pairs
