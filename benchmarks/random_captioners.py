"""Captioners of full size with random weights, pruned at random, as packed files: speed does not ask what is said.

<eos> is made impossible, so that every caption is as long as it may be.
"""

from pathlib import Path

import torch
from torch import nn

from laconic.captioner import packing
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import EOS, SPECIALS, Vocabulary

COCO_WORDS, FLICKR8K_WORDS, DEMO_WORDS = 9488, 2600, 60
IMPOSSIBLE = -100.0


def up_down(path: Path, sparsity: float) -> Path:
    """Up-Down of COCO: 1000 units, regions of 2048 channels."""
    return write(path, ModelConfig(EncoderConfig("regions"), DecoderConfig("up_down")), COCO_WORDS, 0.0, sparsity)


def object_relation(path: Path, sparsity: float) -> Path:
    """Object Relation Transformer of COCO: 6 layers of 512, regions of 2048 channels with boxes."""
    model = ModelConfig(EncoderConfig("regions"), DecoderConfig("object_relation"))
    return write(path, model, COCO_WORDS, 0.0, sparsity)


def small(path: Path, sparsity: float) -> Path:
    """One as small as that of `laconic demo`."""
    options = {"layers": 1, "width": 128, "feed_forward": 256, "heads": 4}
    model = ModelConfig(EncoderConfig("vgg_small", 48, 16), DecoderConfig("object_relation", options))
    return write(path, model, DEMO_WORDS, sparsity, sparsity, "compact")


def soft_attention(path: Path, encoder: float, decoder: float, values: str = "exact") -> Path:
    """Soft-Attention of Flickr8k on MobileNet-V2 at 224 pixels; its 1x1 convolutions and the decoder as sparse."""
    model = ModelConfig(EncoderConfig("mobilenet_v2"), DecoderConfig("soft_attention"))
    return write(path, model, FLICKR8K_WORDS, encoder, decoder, values)


def write(path: Path, model: ModelConfig, words: int, encoder: float, decoder: float, values: str = "exact") -> Path:
    torch.manual_seed(1)
    vocabulary = Vocabulary((*SPECIALS, *(f"word{i}" for i in range(words - len(SPECIALS)))))
    captioner = ImageCaptioner(model, vocabulary).eval()
    with torch.no_grad():
        for module in captioner.encoder.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
                _prune(module.weight, encoder)
        for weight in captioner.decoder.parameters():
            if weight.ndim == 2:
                _prune(weight, decoder)
        captioner.decoder.output.bias[EOS] = IMPOSSIBLE
    packing.save(captioner, path, values=values)
    return path


def _prune(weight: torch.Tensor, sparsity: float) -> None:
    """Zeros at random; the others grow, so that what comes of them keeps its size."""
    kept = torch.rand(weight.shape) >= sparsity
    weight.mul_(kept).div_((1 - sparsity) ** 0.5)
