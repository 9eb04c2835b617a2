"""Several captioners that speak as one: the mean of their probabilities at each word.

    together = Ensemble([load("a.safetensors", backend="torch"), load("b.safetensors", backend="torch")])
    together.search(pixels, Decoding())

An ensemble says more than each of its members (Rennie et al. 2017 and most papers since report one), and is as slow as
all of them together. Here it is a teacher (laconic.training.distillation).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from laconic.captioner.image_captioner import ImageCaptioner, a_few_at_a_time
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, decode
from laconic.errors import ConfigError
from laconic.models.layers import Features
from laconic.models.torch_captioner import best_words
from laconic.spec.tokens import special_ids
from laconic.text import Vocabulary

States = tuple[Any, ...]


class Ensemble(nn.Module):
    """Captioners with one vocabulary that read images of one size.

    Raises:
        ConfigError: fewer than two members, or members with different words or sizes of images.
    """

    def __init__(self, members: Sequence[ImageCaptioner]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ConfigError(f"an ensemble of {len(members)}; give at least two captioners")
        first = members[0]
        for member in members[1:]:
            if member.vocabulary != first.vocabulary:
                raise ConfigError("an ensemble needs one vocabulary; give captioners trained on the same captions")
            if member.config.encoder.size != first.config.encoder.size:
                raise ConfigError(
                    f"an ensemble reads images of one size, not of {first.config.encoder.size} and "
                    f"{member.config.encoder.size}"
                )
        self.members = nn.ModuleList(members)

    @property
    def vocabulary(self) -> Vocabulary:
        """Of all members."""
        return next(self._each).vocabulary

    def forward(self, images: Tensor | Features, tokens: Tensor) -> Tensor:
        """Log-probabilities under teacher forcing, shaped as the logits of a member."""
        return mean_log_probs([member(images, tokens) for member in self._each])

    def search(self, images: Tensor | Features, decoding: Decoding) -> list[list[Hypothesis]]:
        """Hypotheses for each image, best first; the members should be in evaluation mode."""
        with torch.inference_mode():
            return [
                best
                for some in a_few_at_a_time(images, next(self._each).config.encoder.size)
                for best in decode(self, some, decoding, special_ids(self.vocabulary))
            ]

    # The Captioner protocol of laconic.decode.search

    def start(self, images: Tensor | Features) -> States:
        """A state for each member."""
        return tuple(member.decoder.start(member.features(images)) for member in self._each)

    def step(self, states: States, tokens: np.ndarray, k: int | None) -> tuple[np.ndarray, np.ndarray, States]:
        """The k best next words by the mean of the members' probabilities."""
        device = next(self.parameters()).device
        ids = torch.as_tensor(tokens, device=device)
        found = [member.decoder.next_logits(state, ids) for member, state in zip(self._each, states, strict=True)]
        return *best_words(mean_log_probs([logits for logits, _ in found]), k), tuple(state for _, state in found)

    def select(self, states: States, rows: np.ndarray) -> States:
        """Repeats, drops or reorders rows."""
        return tuple(member.decoder.select(state, rows) for member, state in zip(self._each, states, strict=True))

    @property
    def _each(self) -> Iterator[ImageCaptioner]:
        return (cast(ImageCaptioner, member) for member in self.members)


def mean_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """log of the mean of softmax(logits) over the sequence, each (rows, vocabulary)."""
    each = torch.stack([torch.log_softmax(some.float(), -1) for some in logits])
    return torch.logsumexp(each, 0) - math.log(len(logits))
