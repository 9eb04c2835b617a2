"""Visual concepts (Fang et al. 2015, arXiv 1411.4952): an encoder learns which words are said of an image.

Each cell of the grid says how far it shows each word, and an image shows a word where one of its cells does (multiple
instance learning). That is how an encoder without ImageNet weights learns to see from captions: far sooner than through
a captioner, whose attention has to learn where to look at the same time. What it has learned is given to a recipe as
`imagenet` (`laconic.models.encoders.save_encoder`). Knows nothing of the training loop, into which it enters as a model
and an Objective.
"""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from laconic.models.encoders import build_encoder, normalize
from laconic.spec.encoders import channels_of, normalization_of
from laconic.spec.model import EncoderConfig
from laconic.text import SPECIALS
from laconic.training.batches import Batch
from laconic.training.loop import Loss

ABSENT = 4.0  # a word that is there counts as much as so many that are not: of a vocabulary, few words are said


class WordDetector(nn.Module):
    """An encoder, and a linear classifier of its cells. `vocabulary` counts special words, too."""

    def __init__(self, config: EncoderConfig, vocabulary: int) -> None:
        super().__init__()
        self.normalization = normalization_of(config)
        self.encoder = build_encoder(config)
        self.words = nn.Linear(channels_of(config).grid, vocabulary - len(SPECIALS))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (N, size, size, 3) -> logits (N, words); of the cells' logits the log of the mean exponential, a soft
        maximum (Pinheiro, Collobert 2015, arXiv 1411.6228, eq. 6)."""
        cells = self.words(self.encoder(normalize(pixels, self.normalization)).grid)
        return cells.logsumexp(1) - math.log(cells.shape[1])

    def parts(self) -> Mapping[str, nn.Module]:
        """What learns at which rate, see laconic.training.loop.make_optimizer."""
        return {"encoder": self.encoder, "decoder": self.words}


class WordDetection:
    """The objective: binary cross-entropy of every word, whether or not one of the image's captions has it."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(batch.inputs)
        ids = batch.tokens.flatten(1)
        said = logits.new_zeros(len(ids), len(SPECIALS) + logits.shape[1]).scatter_(1, ids, 1.0)[:, len(SPECIALS) :]
        loss = F.binary_cross_entropy_with_logits(logits, said, pos_weight=logits.new_tensor(ABSENT))
        return Loss(loss, len(ids))
