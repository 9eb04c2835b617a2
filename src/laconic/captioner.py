"""ImageCaptioner: encoder, captioner and vocabulary as one object, from pixels to words, in one file.

    captioner = load("tiny.safetensors")
    captioner.caption([read_image("photo.jpg")])     # ["a dog runs through the grass"]

Knows nothing of training, data sets or metrics.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from laconic import store
from laconic.config import from_mapping, to_mapping
from laconic.data.images import resize
from laconic.decode import Captioner, Decoding, Hypothesis, decode
from laconic.errors import ConfigError, FormatError
from laconic.models.captioners import build_captioner
from laconic.models.encoders import build_encoder
from laconic.models.layers import Features, fold_batch_norm
from laconic.text import Vocabulary

KIND = "image_captioner"
MAX_SIDE = 2048  # of encoder input; a file that asks for more is not believed
MAX_VOCABULARY = 1_000_000


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and how it sees an image.

    Attributes:
        name: a row of ENCODERS.
        size: images are resized to size x size pixels.
        stride: of the grid, 16 (finer) or 32.
        norm: batch norm kept apart, for training from scratch; packing folds it.
    """

    name: str = "mobilenet_v2"
    size: int = 224
    stride: int = 32
    norm: bool = False


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


class ImageCaptioner(nn.Module):
    """Encoder and decoder with one vocabulary. Parameters are named `encoder.*` and `decoder.*`."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        encoder = config.encoder
        if not 32 <= encoder.size <= MAX_SIDE:
            raise ConfigError(f"encoder size {encoder.size} is not possible; give 32 to {MAX_SIDE}")
        self.encoder = build_encoder(encoder.name, encoder.stride, encoder.norm)
        decoder = config.decoder
        self.decoder = build_captioner(decoder.name, decoder.options, len(vocabulary), self.encoder)

    def forward(self, images: Tensor | Features, tokens: Tensor) -> Tensor:
        """Logits under teacher forcing; images are uint8 (N, H, W, 3) or already Features. See the decoder."""
        features = images if isinstance(images, Features) else self.encode(images)
        return self.decoder(features, tokens)  # type: ignore[no-any-return]

    def encode(self, pixels: Tensor) -> Features:
        """uint8 (N, size, size, 3) -> Features."""
        return self.encoder(normalize(pixels))  # type: ignore[no-any-return]

    def search(self, images: Tensor | Features, decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first."""
        self.eval()
        with torch.inference_mode():
            features = images if isinstance(images, Features) else self.encode(images)
            return decode(cast(Captioner[Any], self.decoder), features, decoding)

    def caption(self, images: Iterable[np.ndarray], decoding: Decoding | None = None, batch: int = 32) -> list[str]:
        """One caption for each image, uint8 (H, W, 3) RGB of any size."""
        decoding = decoding or Decoding()
        captions: list[str] = []
        remaining = iter(images)
        while some := list(islice(remaining, batch)):
            pixels = np.stack([resize(image, self.config.encoder.size) for image in some])
            found = self.search(torch.from_numpy(pixels), decoding)
            captions += [self.vocabulary.decode(best[0].tokens) for best in found]
        return captions


def save(captioner: ImageCaptioner, path: Path, values: str = "half", **facts: Any) -> int:
    """Packs a captioner into one file, batch norm folded; returns its bytes.

    `facts` are JSON-able remarks kept in the file, such as scores. The captioner itself is folded, too.
    """
    fold_batch_norm(captioner.encoder)
    model = to_mapping(captioner.config)
    model["encoder"]["norm"] = False
    config = {"kind": KIND, "model": model, "facts": facts}
    words = list(captioner.vocabulary.words)
    return store.save(captioner, path, values=values, config=config, vocabulary=words)


def load(path: Path) -> ImageCaptioner:
    """Reads a packed captioner; FormatError where the file is damaged or holds something else."""
    packed = store.load(path)
    if packed.config.get("kind") != KIND or packed.vocabulary is None:
        raise FormatError(f"{path}: holds weights but no image captioner; use a file that `laconic pack` wrote")
    try:
        config = from_mapping(packed.config["model"], ModelConfig, "model")
        vocabulary = Vocabulary(tuple(packed.vocabulary))
        # On the meta device nothing is allocated before the shapes are known to be those in the file.
        with torch.device("meta"):
            captioner = ImageCaptioner(config, vocabulary)
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
