"""ImageCaptioner: encoder, captioner and vocabulary as one object, from pixels to words.

    captioner = laconic.load("tiny.safetensors")
    captioner.caption(["photo.jpg"])     # ["a dog runs through the grass"]

With the encoder "regions" it begins where a detector ended: `captioner.caption(["cocobu_att/1.npy"])`.

Knows nothing of files of its own, training, data sets or metrics.
"""

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence

from laconic.data.images import read_image, resize
from laconic.data.regions import NO_BOXES, Regions, boxes_beside, read_regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Captioner, Decoding, decode
from laconic.errors import ConfigError, DataError
from laconic.models.captioners import build_captioner
from laconic.models.encoders import build_encoder, normalize
from laconic.models.layers import Features
from laconic.spec.model import REGIONS, ModelConfig
from laconic.spec.packed import CaptionerSpec
from laconic.text import Vocabulary

Image = np.ndarray | Regions | str | PathLike[str]


def stack_regions(regions: Sequence[Regions]) -> Features:
    """Regions of several images as one batch, float32, the shorter ones padded with zeros and marked in `valid`.

    `pooled` is the mean of an image's regions. DataError where some images have boxes and others do not: what is said
    of an image must not depend on the others of its batch.
    """
    counts = torch.tensor([len(image.features) for image in regions])
    grid = pad_sequence([torch.tensor(image.features, dtype=torch.float32) for image in regions], True)
    pooled = grid.sum(1) / counts.unsqueeze(1)
    given = [torch.tensor(image.boxes) for image in regions if image.boxes is not None]
    if len(given) not in (0, len(regions)):
        raise DataError(f"{len(given)} of {len(regions)} images have boxes; give them for all images, or for none")
    boxes = pad_sequence(given, True) if given else None
    valid = torch.arange(grid.shape[1]) < counts.unsqueeze(1)
    return Features(grid, pooled, boxes, None if valid.all() else valid)


class ImageCaptioner(nn.Module):
    """Encoder and decoder with one vocabulary. Parameters are named `encoder.*` and `decoder.*`."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.spec = CaptionerSpec(config, vocabulary)
        self.config = config
        self.vocabulary = vocabulary
        self.encoder = build_encoder(config.encoder)
        self.decoder = build_captioner(config.decoder.name, self.spec.captioner)

    def forward(self, images: Tensor | Features, tokens: Tensor) -> Tensor:
        """Logits under teacher forcing; images are uint8 (N, H, W, 3) or already Features. See the decoder."""
        return self.decoder(self.features(images), tokens)  # type: ignore[no-any-return]

    @property
    def reads_pooled(self) -> bool:
        """Whether the pooled feature is read; what an encoder has for it alone does not learn otherwise."""
        return self.spec.captioner.reads_pooled

    @property
    def needs_boxes(self) -> bool:
        """Whether it has to be told where regions lie; the cells of a photo's grid lie where they lie."""
        return self.config.encoder.name == REGIONS and self.spec.captioner.reads_boxes

    def features(self, images: Tensor | Features) -> Features:
        """What the decoder reads: of pixels, or as given. DataError where it needs boxes and there are none."""
        if not isinstance(images, Features):
            return self.encode(images)
        if images.boxes is None and self.needs_boxes:
            raise DataError(f"{self.config.decoder.name} reads where regions lie: {NO_BOXES}")
        return images

    def encode(self, pixels: Tensor) -> Features:
        """uint8 (N, size, size, 3) -> Features."""
        return self.encoder(normalize(pixels, self.spec.normalization))  # type: ignore[no-any-return]

    def search(self, images: Tensor | Features, decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first."""
        self.eval()
        with torch.inference_mode(), parametrize.cached():  # a masked weight is masked once, not at every step
            features = self.features(images)
            return decode(cast(Captioner[Any], self.decoder), features, decoding)

    def caption(self, images: Iterable[Image], decoding: Decoding | None = None, batch: int = 32) -> list[str]:
        """One caption for each image: a photo's path, or uint8 (H, W, 3) RGB of any size.

        For the encoder "regions" the path of their `.npy` file, or Regions. Paths are read as in training, JPEGs at
        half their size or less where that is enough. Raises DataError for a file that cannot be read.
        """
        if isinstance(images, str | PathLike):
            raise ConfigError(f"give a list of images, [{os.fspath(images)!r}]")
        decoding = decoding or Decoding()
        device = next(self.parameters()).device
        captions: list[str] = []
        remaining = iter(images)
        while some := list(islice(remaining, batch)):
            found = self.search(self.batch(some).to(device), decoding)
            captions += [self.vocabulary.decode(best[0].tokens) for best in found]
        return captions

    def batch(self, images: Sequence[Image]) -> Tensor | Features:
        """Images as `forward` and `search` take them; see `caption`."""
        images = [self._read(image) if isinstance(image, str | PathLike) else image for image in images]
        regions = [image for image in images if isinstance(image, Regions)]
        if len(regions) != (len(images) if self.config.encoder.name == REGIONS else 0):
            reads = "region features" if self.config.encoder.name == REGIONS else "photos"
            raise ConfigError(f"this captioner reads {reads}; give it nothing else")
        if regions:
            return stack_regions(regions if self.needs_boxes else [Regions(image.features) for image in regions])
        pixels = [_checked(image) for image in images]
        return torch.from_numpy(np.stack([resize(image, self.config.encoder.size) for image in pixels]))

    def _read(self, path: str | PathLike[str]) -> np.ndarray | Regions:
        config = self.config.encoder
        if config.name != REGIONS:
            return read_image(path, config.size)
        return read_regions(path, config.channels, boxes_beside(Path(path)) if self.needs_boxes else None)


def _checked(image: object) -> np.ndarray:
    """The image where it is pixels as `read_image` gives them, else ConfigError."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    given = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ConfigError(f"an image is {given}; give its path, or uint8 (height, width, 3)")
