"""The two networks of a captioner that are traced, and examples of what they read.

`PhotoEncoder` or `RegionEncoder` reads images once and gives the tensors that a decoder needs; `NextWord` is one step
of the decoder. Both have their state in plain sight, as laconic.captioner.steps has it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.steps import Start, Step, Tensors, modules_of
from laconic.models.layers import Features
from laconic.spec.model import REGIONS

Example = dict[str, Tensor]
Sizes = dict[int, str]  # axis of a tensor -> the name of its size, which may change from call to call

IMAGES, POSITIONS, WORDS = (2, 3), (5, 7), 4  # of two examples, which differ in every size that may change


class PhotoEncoder(nn.Module):
    """Pixels, uint8 (images, size, size, 3) RGB, to the tensors of the images and of captions without words."""

    def __init__(self, start: Start, empty: Callable[[int], Tensors]) -> None:
        super().__init__()
        self.start, self.empty = start, empty

    def forward(self, *given: Tensor) -> Tensors:
        (pixels,) = given
        return (*self.start(pixels), *self.empty(pixels.shape[0]))


class RegionEncoder(PhotoEncoder):
    """The same of region features, float32 (images, regions, channels), which of them are there, bool (images,
    regions), and where the captioner reads boxes, those: float32 (images, regions, 4), relative to the image."""

    def forward(self, *given: Tensor) -> Tensors:
        features, valid, *boxes = given
        grid, pooled = _padded(features, valid)
        return (*self.start(grid, pooled, *boxes, valid), *self.empty(grid.shape[0]))


class NextWord(nn.Module):
    """The last token of each caption, the image that each is of, both int64 (rows,), and the tensors of images and
    captions, to log-probabilities of all next tokens, (rows, vocabulary), and the new tensors of the captions."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def forward(self, *given: Tensor) -> Tensors:
        token, image, *tensors = given
        last = tensors[-1]
        said = last.shape[2] if last.ndim == 4 else 0  # a transformer's keys and values of words tell how many
        logits, *captions = self.step(token, image, torch.full((1,), said), *tensors)
        return (F.log_softmax(logits.float(), -1), *captions)


@dataclass(frozen=True)
class Traceable:
    """A module, and what is to be known to trace it.

    Attributes:
        module: from tensors to tensors.
        example: what it reads, by name.
        outputs: names of what it gives.
        sizes: of each tensor that it reads, the sizes that may change.
    """

    module: nn.Module
    example: Example
    outputs: tuple[str, ...]
    sizes: tuple[Sizes, ...]


@dataclass(frozen=True)
class Parts:
    """Encoder and step of a captioner, and the names of the tensors between them, of images and of captions."""

    encoder: Traceable
    step: Traceable
    of_images: tuple[str, ...]
    of_captions: tuple[str, ...]


@torch.no_grad()
def parts_of(captioner: ImageCaptioner) -> Parts:
    """What is traced of a captioner; ends in whatever the captioner raises where it cannot see such images."""
    first, second = (example_of(captioner, which) for which in range(2))
    start, step = modules_of(captioner, images_of(first))
    module = (PhotoEncoder if "pixels" in first else RegionEncoder)(start, step.empty).eval()
    names, held = (*step.of_images, *step.of_captions), len(step.of_images)
    tensors, others = module(*first.values()), module(*second.values())
    encoder = Traceable(module, first, names, _changing(tuple(first.values()), tuple(second.values())))
    rows = torch.tensor([0, 1, 1, 0])
    captions = tuple(_with_words(tensor.index_select(0, rows)) for tensor in tensors[held:])
    example = dict(zip(names, (*tensors[:held], *captions), strict=True))
    sizes: list[Sizes] = [{0: "rows", **({2: "words"} if tensor.ndim == 4 else {})} for tensor in captions]
    next_word = Traceable(
        NextWord(step).eval(),
        {"token": rows.clone(), "image": rows, **example},
        ("log_probs", *(f"next_{name}" for name in step.of_captions)),
        ({0: "rows"}, {0: "rows"}, *_changing(tensors[:held], others[:held]), *sizes),
    )
    return Parts(encoder, next_word, step.of_images, step.of_captions)


def example_of(captioner: ImageCaptioner, which: int) -> Example:
    """Noise that the encoder reads, by name: the first or the second example. Of regions the last one is missing."""
    images, positions, encoder = IMAGES[which], POSITIONS[which], captioner.config.encoder
    random = torch.Generator().manual_seed(which)
    if encoder.name != REGIONS:
        return {"pixels": torch.randint(256, (images, encoder.size, encoder.size, 3), generator=random).byte()}
    found = {"features": torch.rand(images, positions, encoder.channels, generator=random)}
    found["valid"] = torch.arange(images * positions).reshape(images, positions) < images * positions - 1
    if captioner.needs_boxes:
        corners = torch.rand(images, positions, 2, 2, generator=random)
        found["boxes"] = corners.sort(2).values.flatten(2)
    return found


def images_of(example: Example) -> Tensor | Features:
    """An example as a captioner takes it."""
    if "pixels" in example:
        return example["pixels"]
    return Features(*_padded(example["features"], example["valid"]), example.get("boxes"), example["valid"])


def _padded(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Regions with zeros in the place of those that are missing, and the mean of the others of each image."""
    grid = features.masked_fill(~valid.unsqueeze(-1), 0)
    return grid, grid.sum(1) / valid.sum(1, keepdim=True).clamp(min=1)


def _changing(tensors: Tensors, others: Tensors) -> tuple[Sizes, ...]:
    """The axes in which each tensor of the first example differs from that of the second one."""
    names = {IMAGES: "images", POSITIONS: "regions"}
    return tuple(
        {axis: names[pair] for axis, pair in enumerate(zip(one.shape, other.shape, strict=True)) if pair in names}
        for one, other in zip(tensors, others, strict=True)
    )


def _with_words(tensor: Tensor) -> Tensor:
    """An example's keys or values of words, of which there were none; other tensors as they are."""
    return tensor.new_zeros(*tensor.shape[:2], WORDS, tensor.shape[3]) if tensor.ndim == 4 else tensor
