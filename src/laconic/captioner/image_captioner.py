"""ImageCaptioner: encoder, captioner and vocabulary as one object, from pixels to words, in one file.

    captioner = load("tiny.safetensors")
    captioner.caption(["photo.jpg"])     # ["a dog runs through the grass"]

With the encoder "regions" it begins where a detector ended: `captioner.caption(["cocobu_att/1.npy"])`.

Knows nothing of training, data sets or metrics.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode

from laconic import store
from laconic.config import from_mapping, to_mapping
from laconic.data.images import read_image, resize
from laconic.data.regions import NO_BOXES, Regions, boxes_beside, read_regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Captioner, Decoding, decode
from laconic.errors import ConfigError, DataError, FormatError
from laconic.models.captioners import build_captioner
from laconic.models.encoders import REGIONS, build_encoder
from laconic.models.fold import fold_biases
from laconic.models.layers import Features, fold_batch_norm
from laconic.text import Vocabulary

KIND = "image_captioner"
MAX_SIDE = 2048  # of encoder input; a file that asks for more is not believed
MAX_WEIGHTS = 2**28  # of a captioner with its encoder, 1 GiB; the largest that were published have a fifth of it

Image = np.ndarray | Regions | str | PathLike[str]


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and how it sees an image.

    Attributes:
        name: a row of ENCODERS, or "regions" for a captioner that reads region features.
        size: images are resized to size x size pixels.
        stride: of the grid, 16 (finer) or 32.
        norm: batch norm kept apart, for training from scratch; packing folds it.
        channels: width of "regions"; the width of other encoders is their own.
    """

    name: str = "mobilenet_v2"
    size: int = 224
    stride: int = 32
    norm: bool = False
    channels: int = 2048


@dataclass(frozen=True)
class DecoderConfig:
    """Which captioner, with its own options (see its config dataclass), such as `cell` or `dropout`."""

    name: str = "soft_attention"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build an ImageCaptioner, vocabulary apart."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in -1..1, channels last in memory: RGB / 127.5 - 1."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0)


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
        self.config = config
        self.vocabulary = vocabulary
        encoder = config.encoder
        if not 32 <= encoder.size <= MAX_SIDE:
            raise ConfigError(f"encoder size {encoder.size} is not possible; give 32 to {MAX_SIDE}")
        self.encoder = build_encoder(encoder.name, encoder.stride, encoder.norm, encoder.channels)
        decoder = config.decoder
        self.decoder = build_captioner(decoder.name, decoder.options, len(vocabulary), self.encoder)

    def forward(self, images: Tensor | Features, tokens: Tensor) -> Tensor:
        """Logits under teacher forcing; images are uint8 (N, H, W, 3) or already Features. See the decoder."""
        return self.decoder(self.features(images), tokens)  # type: ignore[no-any-return]

    @property
    def needs_boxes(self) -> bool:
        """Whether it has to be told where regions lie; the cells of a photo's grid lie where they lie."""
        return self.config.encoder.name == REGIONS and getattr(self.decoder, "reads_boxes", False)

    def features(self, images: Tensor | Features) -> Features:
        """What the decoder reads: of pixels, or as given. DataError where it needs boxes and there are none."""
        if not isinstance(images, Features):
            return self.encode(images)
        if images.boxes is None and self.needs_boxes:
            raise DataError(f"{self.config.decoder.name} reads where regions lie: {NO_BOXES}")
        return images

    def encode(self, pixels: Tensor) -> Features:
        """uint8 (N, size, size, 3) -> Features."""
        return self.encoder(normalize(pixels))  # type: ignore[no-any-return]

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


def fold(captioner: ImageCaptioner) -> None:
    """Moves batch norms, and biases and gains that others can take over, into other weights, in place.

    What the captioner says stays the same up to rounding. Folding twice changes nothing more, unless it is quantised
    in between.
    """
    fold_batch_norm(captioner.encoder)
    fold_biases(captioner.decoder)


def save(
    captioner: ImageCaptioner,
    path: Path,
    values: str = "half",
    *,
    steps: Mapping[str, float] | None = None,
    **facts: Any,
) -> int:
    """Packs a captioner into one file, folded; returns its bytes. The captioner itself is folded, too.

    Under "exact" only batch norm is folded, and every other bit kept. `steps` is for a captioner that has been
    quantised, see laconic.recipes.calibration. `facts` are JSON-able remarks kept in the file, such as scores.
    """
    if values == "exact" or steps:  # what has been quantised has been folded before, and lies on its steps
        fold_batch_norm(captioner.encoder)
    else:
        fold(captioner)
    model = to_mapping(captioner.config)
    model["encoder"]["norm"] = False
    tokenization = captioner.vocabulary.tokenization
    config = {"kind": KIND, "model": model, "tokenization": tokenization, "facts": facts}
    words = list(captioner.vocabulary.words)
    return store.save(captioner, path, values=values, steps=steps, config=config, vocabulary=words)


def outline(config: ModelConfig, vocabulary: Vocabulary, max_weights: int = MAX_WEIGHTS) -> ImageCaptioner:
    """A captioner on the meta device: names and shapes, no memory. ConfigError where it has more weights than that."""
    try:
        with torch.device("meta"), _Undrawn():
            captioner = ImageCaptioner(config, vocabulary)
    except RuntimeError:  # its sizes are beyond what torch can count
        raise ConfigError(f"the captioner is too large to be built: {config.decoder}") from None
    weights = sum(parameter.numel() for parameter in captioner.parameters())
    if weights > max_weights:
        raise ConfigError(f"the captioner has {weights:,} weights, the limit is {max_weights:,}; give smaller sizes")
    return captioner


class _Undrawn(TorchFunctionMode):
    """Leaves out normally distributed initial values: on the meta device they would import torch's compiler, which
    takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.init.normal_:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load(path: Path, max_weights: int = MAX_WEIGHTS) -> ImageCaptioner:
    """Reads a packed captioner; FormatError where the file is damaged, holds something else, or more weights than that.

    Zeros cost a file nothing and memory 4 bytes each.
    """
    packed = store.load(path, max_weights=max_weights)
    if packed.config.get("kind") != KIND or packed.vocabulary is None:
        raise FormatError(f"{path}: holds weights but no image captioner; use a file that `laconic pack` wrote")
    try:
        config = from_mapping(packed.config["model"], ModelConfig, "model")
        vocabulary = Vocabulary(tuple(packed.vocabulary), packed.config.get("tokenization", "words"))
        # nothing is allocated before shapes are known to be those of the file
        captioner = outline(config, vocabulary, max_weights)
        store.check_match(packed, captioner)
    except FormatError as error:  # of the vocabulary, which does not know the file
        where = str(error).removeprefix(f"{path}: ")
        raise FormatError(f"{path}: {where}") from None
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]  # torch appends its C++ stack
        raise FormatError(f"{path}: its model configuration is damaged ({reason})") from None
    captioner = captioner.to_empty(device="cpu")
    store.load_into(packed, captioner)
    return captioner.eval()
