"""A BLIP that captions, dense or slim, called as laconic's own captioners are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from laconic.captioner.inputs import Image
from laconic.data.images import read_image, resize
from laconic.data.regions import Regions
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, FormatError, printable
from laconic.hf.folders import from_pretrained
from laconic.hf.pixels import image_processor, read_normalization
from laconic.hf.tokens import read_tokenizer
from laconic.spec.pixels import Normalization

CLASS = "BlipForConditionalGeneration"
AT_ONCE = 16  # images of which captions are searched together


@dataclass(frozen=True, eq=False)
class BlipCaptioner:
    """A BLIP with its tokenizer and what its pixels are normalised by; a laconic.captioner.captioning.AnyCaptioner."""

    net: nn.Module
    tokenizer: Any
    pixels: Normalization

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "BlipCaptioner":
        """Opens a folder; nothing is downloaded.

        Raises:
            ConfigError: the model is another one than a BLIP that captions pixels.
            FormatError: the folder is damaged, or lacks the tokenizer or the image processor.
        """
        folder = Path(folder)
        net: Any = from_pretrained(folder)
        if type(net).__name__ != CLASS:
            raise ConfigError(f"{printable(folder)}: holds a {type(net).__name__}; captions are written by a {CLASS}")
        channels = getattr(net.config.vision_config, "num_channels", 3)
        if channels != 3:
            raise ConfigError(f"{printable(folder)}: reads features of {channels} channels; photos are not enough")
        normalization = read_normalization(folder)
        if normalization is None:
            raise FormatError(
                f"{printable(folder)}: no image processor's file says how pixels are normalised; save the model's own "
                "beside it, with processor.save_pretrained(folder)"
            )
        return cls(net, read_tokenizer(folder), normalization)

    @property
    def processor(self) -> Any:
        """An image processor of transformers that says what `pixels` says."""
        return image_processor(self.side, self.pixels)

    @property
    def side(self) -> int:
        """Rows and columns of the square that photos are resized to."""
        net: Any = self.net
        return int(net.config.vision_config.image_size)

    @property
    def region_channels(self) -> int:
        """0: it reads photos."""
        return 0

    @property
    def needs_boxes(self) -> bool:
        return False

    def caption(self, images: Iterable[Image], decoding: Decoding | None = None, batch: int = 0) -> list[str]:
        """One caption for each image: a photo's path, or uint8 (H, W, 3) RGB; `max_length` counts tokens of BLIP's.

        Raises DataError for a file that cannot be read.
        """
        decoding = decoding or Decoding()
        remaining, captions = iter(images), list[str]()
        while some := list(islice(remaining, batch or AT_ONCE)):
            pixels = torch.from_numpy(np.stack([self.pixels(self._square(image)) for image in some]))
            captions += write_captions(
                self.net,
                self.tokenizer,
                pixels,
                num_beams=decoding.beam,
                max_length=decoding.max_length + 1,
                length_penalty=decoding.length_penalty,
            )
        return captions

    def _square(self, image: Image) -> np.ndarray:
        if isinstance(image, Regions):
            raise ConfigError("this captioner reads photos; give it nothing else")
        pixels = image if isinstance(image, np.ndarray) else read_image(image, self.side)
        return resize(pixels, self.side)


@torch.inference_mode()
def write_captions(
    net: nn.Module, tokenizer: Any, pixels: Tensor, prompt: Sequence[int] = (), **options: Any
) -> list[str]:
    """The best caption of each image, without the prompt, as `generate` of transformers finds it with these options.

    Args:
        net: a BlipForConditionalGeneration in evaluation mode.
        pixels: float32 (n, channels, side, side), normalised.
        prompt: ids of tokens that each caption begins with.
        options: of `generate`; lengths count the first token and the prompt.
    """
    blip: Any = net
    device = next(net.parameters()).device
    begun = torch.tensor([[blip.config.text_config.bos_token_id, *prompt, 0]], device=device)
    tokens = blip.generate(
        pixels.to(device),
        input_ids=begun.repeat(len(pixels), 1),  # generate drops the last one, which should be the end
        do_sample=False,
        **options,
    )
    found: list[str] = tokenizer.batch_decode(tokens[:, begun.shape[1] - 1 :], skip_special_tokens=True)
    return found
