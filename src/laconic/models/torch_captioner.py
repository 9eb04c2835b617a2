"""What every captioner of laconic is to the rest of it.

A subclass writes teacher forcing (`forward`) and the steps of a search in tensors (`initial_state`, `next_logits`,
`select_rows`: what an exporter traces and another engine must equal), and states what others need to know of its
weights (`output_bias`, `fold`). Search (laconic.decode) speaks numpy: here arrays become tensors, and tensors arrays.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.models.layers import Features
from laconic.models.words import WordLayers
from laconic.spec.captioners import CaptionerConfig

S = TypeVar("S")


class TorchCaptioner(WordLayers, ABC, Generic[S]):
    """A captioner over an encoder's Features, made with its configuration alone.

    A state S is a NamedTuple of tensors, or of such tuples. It has rows, one caption in the making each, and holds what
    the decoder sees of the images once, however many rows look at an image.
    """

    config: CaptionerConfig

    @property
    @abstractmethod
    def output_bias(self) -> str | None:
        """Name of the parameter (vocabulary,) that is added to the logits; None where there is none."""

    @abstractmethod
    def fold(self) -> None:
        """Moves biases and gains that other parameters can take over into those, in place: what it says stays the same
        up to rounding, and a packed file need not pay for them (laconic.compress.fold). Twice is as good as once."""

    @abstractmethod
    def forward(self, features: Features, tokens: Tensor) -> Tensor:
        """Logits of every next word under teacher forcing.

        Args:
            features: of N images.
            tokens: (N, S, T) S captions per image, <bos> first, padded with 0 behind <eos>.

        Returns:
            (M, vocabulary): one row for each non-padding entry of `tokens[..., 1:]`, in row-major order.
        """

    @abstractmethod
    def initial_state(self, features: Features) -> S:
        """One row per image."""

    @abstractmethod
    def next_logits(self, state: S, ids: Tensor) -> tuple[Tensor, S]:
        """Logits (rows, vocabulary) of the words after `ids` (rows,), and the new state; `state` stays as it is."""

    @abstractmethod
    def select_rows(self, state: S, rows: Tensor) -> S:
        """The state made of `rows` (any,) of this one: repeats, drops or reorders."""

    @property
    def units(self) -> Mapping[str, tuple[str, ...]]:
        """Kinds of units of each dimension of each weight, behind each other; "" where there are none.

        A narrower captioner has fewer of them (laconic.captioner.narrowing). The tables of words are meant whole,
        whatever they are made of: embedding (words, word) and output (words, hidden). Empty, as here: no narrower one
        can begin with these weights.
        """
        return {}

    def tie_weights(self) -> None:
        """Makes a tied table one parameter again, after what gave each place a parameter of its own (`to_empty`)."""
        if getattr(self.config, "tied", False):  # a captioner need not have such tables
            self.output.weight = self.embedding.weight

    @property
    def reads_pooled(self) -> bool:
        """Whether the pooled feature is read."""
        return self.config.reads_pooled

    # The Captioner protocol of laconic.decode.search

    @torch.inference_mode()
    def start(self, images: Features) -> S:
        """One row per image."""
        return self.initial_state(images)

    @torch.inference_mode()
    def step(self, state: S, tokens: np.ndarray, k: int | None) -> tuple[np.ndarray, np.ndarray, S]:
        """The k best next words of each row after `tokens` (rows,): log-probabilities, ids, new state."""
        logits, state = self.next_logits(state, torch.as_tensor(tokens, device=self._device))
        return *best_words(logits, k), state

    @torch.inference_mode()
    def select(self, state: S, rows: np.ndarray) -> S:
        """Repeats, drops or reorders rows."""
        return self.select_rows(state, torch.as_tensor(rows, device=self._device))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


def best_words(logits: Tensor, k: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and ids (rows, min(k, vocabulary)) of the most likely words, best first; with None of all
    words, in the order of their ids. Logits (rows, vocabulary)."""
    log_probs = F.log_softmax(logits.float(), -1)
    if k is None:
        return log_probs.cpu().numpy(), np.broadcast_to(np.arange(log_probs.shape[-1]), tuple(log_probs.shape))
    best = log_probs.topk(min(k, log_probs.shape[-1]), -1)
    return best.values.cpu().numpy(), best.indices.cpu().numpy()
