"""Image classification by a Vision Transformer: ViT, or DeiT without its teacher.

Data: "class_folders", photos in a folder for each class, as ImageNet is laid out. Mixup and CutMix as DeiT is trained;
distillation, where it is asked for, is from the dense model.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from laconic.config import expand
from laconic.data import Skipped
from laconic.data.class_folders import Classified, load_class_folders
from laconic.errors import ConfigError
from laconic.metrics.classification import top_k
from laconic.tasks.blip import check_tower, shape_of_tower
from laconic.tasks.images import Images, Shape, open_images
from laconic.tasks.mixing import mix, one_hot
from laconic.tasks.nets import check_classes, check_recipe, images_of, open_folder, save_folder
from laconic.tasks.settings import ModelRecipe, SlimRecipe
from laconic.tasks.supply import Shuffled, moved
from laconic.tasks.table import Show
from laconic.tasks.task import Learner

DATA = ("class_folders",)
KINDS = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}
VALIDATED = 64  # images at once
TOP = 5


@dataclass(frozen=True)
class ImageBatch:
    """What one step learns from: pixels float32 (n, channels, side, side), targets float32 (n, classes)."""

    pixels: Tensor
    targets: Tensor

    @property
    def count(self) -> int:
        """Images."""
        return len(self.pixels)

    def to(self, device: torch.device) -> "ImageBatch":
        """The same on a device."""
        return moved(self, device)


class Classification:
    """The task over two splits."""

    selection = "accuracy"

    def __init__(
        self, net: nn.Module, splits: dict[str, Classified], images: dict[str, Images], recipe: SlimRecipe
    ) -> None:
        self.net, self.splits, self.images, self.recipe = net, splits, images, recipe
        training = recipe.training
        self.batches = Shuffled(self._fetch, self._rows("train"), training.batch, training.seed)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that cannot be read."""
        return (*self.images["train"].skipped, *self.images["val"].skipped)

    def _rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.images[split].source.valid)

    def _fetch(self, rows: np.ndarray, rng: np.random.Generator) -> ImageBatch:
        mirrored = rng.random(len(rows)) < 0.5 if self.recipe.training.mirror else None
        pixels = self.images["train"].batch(rows, mirrored)
        targets = one_hot(self._labels["train"][rows], len(self.splits["train"].classes))
        options = self.recipe.options
        return ImageBatch(*mix(pixels, targets, options.mixup, options.cutmix, rng))

    @cached_property
    def _labels(self) -> dict[str, np.ndarray]:
        return {name: np.array(split.labels, np.int64) for name, split in self.splits.items()}

    def outputs(self, net: Any, batch: ImageBatch) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = net(pixel_values=batch.pixels).logits
        return logits

    def loss(self, outputs: Tensor, batch: ImageBatch) -> Tensor:
        """Cross-entropy with the shares of classes that mixing leaves."""
        return F.cross_entropy(outputs.float(), batch.targets, label_smoothing=self.recipe.training.label_smoothing)

    def learner(self, net: nn.Module, teacher: nn.Module | None, weight: float, temperature: float) -> nn.Module:
        """The usual one."""
        return Learner(net, self, teacher, weight, temperature)

    def validate(self, net: Any) -> dict[str, float]:
        """Percentage of images whose class is the first choice, and among the first five where there are more."""
        device, rows = next(net.parameters()).device, self._rows("val")
        said = [
            net(pixel_values=self.images["val"].batch(rows[start : start + VALIDATED]).to(device)).logits.cpu()
            for start in range(0, len(rows), VALIDATED)
        ]
        scores, labels = torch.cat(said).float().numpy(), self._labels["val"][rows]
        found = {"accuracy": top_k(scores, labels)}
        return found if scores.shape[1] <= TOP else {**found, f"top {TOP} accuracy": top_k(scores, labels, TOP)}

    def baselines(self) -> dict[str, float]:
        """Chance, and the class that is most frequent in training."""
        counts = np.bincount(self._labels["train"])
        share = float((self._labels["val"] == counts.argmax()).mean())
        return {"chance": 100 / len(counts), "no image": 100 * share}

    def example(self) -> dict[str, Tensor]:
        """One image."""
        return {"pixel_values": self.images["val"].batch(self._rows("val")[:1])}

    def save(self, net: nn.Module, folder: Path) -> None:
        """Model with the names of its classes, and image processor where it reads pixels."""
        save_folder(net, folder, self.images["train"])


def open_task(recipe: SlimRecipe, cache: Path, show: Show) -> Classification:
    """The task as a recipe asks for it; raises as laconic.tasks.table.open_task."""
    check_recipe(recipe, kinds=tuple(KINDS), options=("mixup", "cutmix"))
    if recipe.data.name not in DATA or not recipe.data.root:
        raise ConfigError(
            f'classify reads data.name = "{DATA[0]}" from data.root, not {recipe.data.name!r} from {recipe.data.root!r}'
        )
    splits = {
        name: _first(load_class_folders(expand(recipe.data.root), name), recipe, name) for name in ("train", "val")
    }
    classes = splits["train"].classes
    if splits["val"].classes != classes:
        raise ConfigError(f"{recipe.data.root}: train and val have other classes; each needs the same folders")
    model = recipe.model
    if model.initial:
        net = open_folder(recipe, tuple(KINDS.values()))
        model = images_of(model, net)
        check_classes(model, net, len(classes))
    else:
        torch.manual_seed(recipe.training.seed)
        net = _fresh(model, Shape.of(model), classes)
    images = {}
    for name, split in splits.items():
        mirror = name == "train" and recipe.training.mirror
        progress = partial(show, f"images of {name}")
        images[name] = open_images(split.images, model, cache, mirror=mirror, progress=progress)
    return Classification(net, splits, images, recipe)


def _first(found: Classified, recipe: SlimRecipe, split: str) -> Classified:
    """As many images of each class as make up the number that the recipe gives."""
    count: int = getattr(recipe.data, split)
    if not count:
        return found
    seen: Counter[int] = Counter()
    place = []
    for label in found.labels:
        place.append(seen[label])
        seen[label] += 1
    rows = np.argsort(place, kind="stable")[:count]
    rows.sort()
    return Classified([found.images[int(row)] for row in rows], [found.labels[int(row)] for row in rows], found.classes)


def _fresh(model: ModelRecipe, shape: Shape, classes: Sequence[str]) -> nn.Module:
    import transformers

    check_tower("vision", model.vision)
    kind = KINDS[model.kind or "vit"]
    config_class = getattr(transformers, kind.replace("ForImageClassification", "Config"))
    config = config_class(
        **shape_of_tower(model.vision),
        hidden_dropout_prob=model.vision.dropout,
        attention_probs_dropout_prob=model.vision.dropout,
        image_size=shape.side,
        patch_size=shape.patch,
        num_channels=shape.channels,
        id2label=dict(enumerate(classes)),
        label2id={name: label for label, name in enumerate(classes)},
    )
    made: nn.Module = getattr(transformers, kind)(config)
    return made
