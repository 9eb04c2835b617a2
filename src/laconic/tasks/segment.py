"""Semantic segmentation by Segmenter: a class for each pixel of an image.

Data: the layouts of laconic.data.segmentation. Images of any shape are resized to the square of `model.image`; the loss
is taken on masks of reduced size, the scores on masks as they are, to whose size the decisions are scaled up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic import hf
from laconic.config import expand
from laconic.data import Skipped
from laconic.data.segmentation import LAYOUTS, Labels, Segmented, load_segmentation
from laconic.errors import ConfigError
from laconic.metrics.segmentation import VOID, confusion, mean_iou, pixel_accuracy
from laconic.tasks.blip import check_tower, shape_of_tower
from laconic.tasks.guesses import Guesses, count_classes
from laconic.tasks.images import Images, Shape, open_images
from laconic.tasks.nets import check_classes, check_recipe, images_of, open_folder, save_folder
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.supply import Shuffled, moved
from laconic.tasks.table import Show
from laconic.tasks.task import Learner

FINENESS = 8  # points of the loss along a side of a cell; a patch of fewer pixels has no more than those
VALIDATED = 16  # images at once
DECODER_LAYERS = 2  # of a fresh model, as published
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of the image, in multi-scale scores (Strudel et al. 2021)

Logits = Callable[[Any, Tensor], Tensor]  # (net, pixels) -> (n, classes, rows, columns)


@dataclass(frozen=True)
class MaskedBatch:
    """What one step learns from: pixels float32 (n, channels, side, side), labels int64 (n, points, points) or VOID."""

    pixels: Tensor
    labels: Tensor

    @property
    def count(self) -> int:
        """Images."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "MaskedBatch":
        """The same on a device."""
        return moved(self, device)


class Segmentation:
    """The task over two splits."""

    selection = "mean IoU"

    def __init__(
        self,
        net: nn.Module,
        splits: dict[str, Segmented],
        images: dict[str, Images],
        recipe: SlimRecipe,
        guesses: Guesses,
    ) -> None:
        self.net, self.splits, self.images, self.recipe, self.guesses = net, splits, images, recipe, guesses
        self.classes = len(splits["train"].layout.classes)
        training = recipe.training
        self.batches = Shuffled(self._fetch, self._rows("train"), training.batch, training.seed)

    @property
    def cells(self) -> int:
        """Along a side of the grid of decisions."""
        shape = self.images["train"].shape
        return shape.side // shape.patch

    @property
    def points(self) -> int:
        """Along a side of the labels of the loss."""
        shape = self.images["train"].shape
        return self.cells * (FINENESS if shape.channels != 3 else min(FINENESS, shape.patch))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that cannot be read."""
        return (*self.images["train"].skipped, *self.images["val"].skipped)

    def _rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.images[split].source.valid)

    def _fetch(self, rows: np.ndarray, rng: np.random.Generator) -> MaskedBatch:
        flips = rng.random(len(rows)) < 0.5
        mirrored = flips if self.recipe.training.mirror else None
        pixels = self.images["train"].batch(rows, mirrored)
        labels = np.stack([sampled(self.splits["train"].labels(int(row)), self.points) for row in rows])
        if mirrored is not None:
            labels[mirrored] = labels[mirrored, :, ::-1]
        return MaskedBatch(pixels, torch.from_numpy(labels.astype(np.int64)))

    def outputs(self, net: Any, batch: MaskedBatch) -> Tensor:
        """Logits (n x rows x columns, classes), a decision for each cell of the grid."""
        logits: Tensor = net(pixel_values=batch.pixels)
        return logits.permute(0, 2, 3, 1).flatten(0, 2)

    def loss(self, outputs: Tensor, batch: MaskedBatch) -> Tensor:
        """Cross-entropy by pixel after bilinear upsampling; pixels without a class count for nothing."""
        grid = outputs.float().unflatten(0, (batch.count, self.cells, self.cells)).permute(0, 3, 1, 2)
        scaled = F.interpolate(grid, size=batch.labels.shape[1:], mode="bilinear")
        smoothing = self.recipe.training.label_smoothing
        total = F.cross_entropy(scaled, batch.labels, ignore_index=VOID, label_smoothing=smoothing, reduction="sum")
        return total / (batch.labels != VOID).sum().clamp(min=1)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        """The usual one."""
        return Learner(net, self, teacher, weight, temperature)

    def validate(self, net: Any) -> dict[str, float]:
        """Mean IoU and pixel accuracy, and where the recipe asks for it mean IoU over several scales."""
        matrix = self._confusion(net, _logits)
        found = {"mean IoU": mean_iou(matrix), "pixel accuracy": pixel_accuracy(matrix)}
        if self.recipe.options.multi_scale:
            scaled = partial(over_scales, patch=self.images["val"].shape.patch)
            found["multi-scale mean IoU"] = mean_iou(self._confusion(net, scaled))
        return found

    def _confusion(self, net: Any, logits: Logits) -> np.ndarray:
        matrix = np.zeros((self.classes, self.classes), np.int64)
        for row, grid in self._decisions(net, logits):
            labels = self.splits["val"].labels(row)
            said = F.interpolate(grid[None].float(), size=labels.shape, mode="bilinear")
            matrix += confusion(said[0].argmax(0).cpu().numpy(), labels, self.classes)
        return matrix

    def _decisions(self, net: Any, logits: Logits) -> Iterator[tuple[int, Tensor]]:
        device, rows = next(net.parameters()).device, self._rows("val")
        for start in range(0, len(rows), VALIDATED):
            some = rows[start : start + VALIDATED]
            yield from zip(some.tolist(), logits(net, self.images["val"].batch(some).to(device)), strict=True)

    def baselines(self) -> dict[str, float]:
        """Mean IoU of random guesses, of the most frequent class everywhere, and of that of each place in the image."""
        split = self.splits["val"]
        masks = [split.labels(int(row)) for row in self._rows("val")]
        return self.guesses.scores(masks)

    def example(self) -> dict[str, Tensor]:
        """One image."""
        return {"pixel_values": self.images["val"].batch(self._rows("val")[:1])}

    def save(self, net: nn.Module, folder: Path) -> None:
        """Model with the names of its classes, and image processor where it reads pixels."""
        save_folder(net, folder, self.images["train"])


def sampled(labels: Labels, side: int) -> Labels:
    """The labels (side, side) nearest to the middles of so many cells; classes have no mean."""
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(np.int64) for length in labels.shape)
    found: Labels = labels[rows[:, None], columns]
    return found


def _logits(net: Any, pixels: Tensor) -> Tensor:
    found: Tensor = net(pixel_values=pixels)
    return found


def over_scales(net: Any, pixels: Tensor, *, patch: int) -> Tensor:
    """Mean probabilities (n, classes, rows, columns) of images at SCALES, each as it is and mirrored.

    The published scores slide a window over large images; here the whole image is scaled.
    """
    side, said = pixels.shape[-1], []
    for scale in SCALES:
        length = max(1, round(side * scale / patch)) * patch
        scaled = F.interpolate(pixels, size=(length, length), mode="bilinear", antialias=True)
        shares = _logits(net, scaled).float().softmax(1) + _logits(net, scaled.flip(3)).float().softmax(1).flip(3)
        said.append(F.interpolate(shares, size=(side // patch, side // patch), mode="bilinear") / 2)
    return torch.stack(said).mean(0)


def open_task(recipe: SlimRecipe, cache: Path, show: Show) -> Segmentation:
    """The task as a recipe asks for it; raises as laconic.tasks.table.open_task.

    All masks are read once at the start, so that one that cannot be used stops no training halfway.
    """
    check_recipe(recipe, kinds=("segmenter",), options=("multi_scale",))
    if recipe.data.name not in LAYOUTS or not recipe.data.root:
        raise ConfigError(
            f"segment reads data.name = one of {', '.join(LAYOUTS)} from data.root, not {recipe.data.name!r} from "
            f"{recipe.data.root!r}"
        )
    root = expand(recipe.data.root)
    splits = {name: _first(load_segmentation(recipe.data.name, root, name), recipe, name) for name in ("train", "val")}
    classes = splits["train"].layout.classes
    model = recipe.model
    if recipe.options.multi_scale and model.encoder:
        raise ConfigError("options.multi_scale scales pixels; features of model.encoder cannot be scaled: leave it out")
    if model.initial:
        net = open_folder(recipe, ("Segmenter",))
        model = images_of(model, net)
        check_classes(model, net, len(classes))
    else:
        torch.manual_seed(recipe.training.seed)
        net = _fresh(model, Shape.of(model), classes)
    if not model.encoder and model.image % model.patch:
        raise ConfigError(
            f"model.image = {model.image} is no multiple of model.patch = {model.patch}; give one that is"
        )
    guesses = count_classes(splits["train"], partial(show, "masks of train"))
    count_classes(splits["val"], partial(show, "masks of val"))
    images = {}
    for name, split in splits.items():
        mirror = name == "train" and recipe.training.mirror
        images[name] = open_images(
            split.images, model, cache, mirror=mirror, progress=partial(show, f"images of {name}")
        )
    return Segmentation(net, splits, images, recipe, guesses)


def _first(found: Segmented, recipe: SlimRecipe, split: str) -> Segmented:
    count: int = getattr(recipe.data, split) or len(found.images)
    rows = range(min(count, len(found.images)))
    return replace(found, images=[found.images[row] for row in rows], masks=found.masks[: len(rows)])


def _fresh(model: ModelRecipe, shape: Shape, classes: Sequence[str]) -> nn.Module:
    check_tower("vision", model.vision)
    config = hf.SegmenterConfig(  # type: ignore[call-arg]
        **shape_of_tower(model.vision),
        decoder_layers=DECODER_LAYERS,
        hidden_dropout_prob=model.vision.dropout,
        attention_probs_dropout_prob=model.vision.dropout,
        image_size=shape.side,
        patch_size=shape.patch,
        num_channels=shape.channels,
        id2label=dict(enumerate(classes)),
        label2id={name: label for label, name in enumerate(classes)},
    )
    return hf.Segmenter(config)
