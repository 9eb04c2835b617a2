"""Modules that take over where a class of transformers cannot have another head dimension, or none at all.

Their parameters keep the names that they had, so a slim model's state looks like the dense one's, only smaller. None of
them hands out attention maps.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class SlimBlipAttention(nn.Module):
    """Attention of BLIP's vision tower with a head dimension of its own; transformers' class fixes width / heads.

    Takes over layers, dropout and softmax scale of the module it replaces. Without units it is its projection's bias.
    """

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        old: Any = dense
        self.num_heads: int = old.num_heads
        self.scale: float = old.scale
        self.dropout: nn.Dropout = old.dropout
        self.qkv: nn.Linear = old.qkv
        self.projection: nn.Linear = old.projection

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        """hidden_states (batch, rows, width) -> the same shape, and no map of attention."""
        if not self.projection.in_features:
            return self.projection(hidden_states[..., :0]), None
        split = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        p = self.dropout.p if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=p, scale=self.scale)
        return self.projection(found.transpose(1, 2).flatten(2)), None


class AbsentAttention(nn.Module):
    """Attention without units: its output is the bias of its output projection, which keeps its name."""

    def __init__(self, dense: nn.Module, projection: str) -> None:
        super().__init__()
        self.projection = projection
        self.add_module(projection, dense.get_submodule(projection))

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """hidden_states (batch, rows, width) -> the same shape, and no map of attention."""
        return self.get_submodule(self.projection)(hidden_states[..., :0]), None


class AbsentTextAttention(nn.Module):
    """Attention of BLIP's text towers without units; the projection, which lies outside, gives its bias.

    Self-attention still tells the cache how many positions it saw: a decoder asks layer 0 for the length of the past.
    An empty tensor would count as no past, so one zero stands for each position.
    """

    def __init__(self, dense: nn.Module, _: str = "") -> None:
        super().__init__()
        self.layer_idx: int | None = getattr(dense, "layer_idx", None)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        """hidden_states (batch, rows, width) -> (batch, rows, 0), and no map of attention."""
        cache = others.get("cache", others.get("past_key_values"))  # by the release of transformers
        if cache is not None and encoder_hidden_states is None:
            past = getattr(cache, "self_attention_cache", cache)
            positions = hidden_states.new_zeros(len(hidden_states), 1, hidden_states.shape[1], 1)
            past.update(positions, positions, self.layer_idx)
        return hidden_states[..., :0], None
