"""Pre-norm Transformer layers (Vaswani et al. 2017) over packed rows, for training and for search alike.

Sequences of different lengths are kept as one table of rows without padding, so that matrix products, norms and
dropout touch real words and regions only; `Packing` pads them where attention needs it. Knows nothing of captions,
boxes or vocabularies: relations between positions come in as a bias on the attention logits.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.compress.fold import fold_attention_biases, fold_layer_norm
from laconic.models.dropout import dropout
from laconic.spec.captioners import PROJECTIONS, Sharing

MASKED = -1e9  # logit of a key that is padding


@dataclass(frozen=True)
class Packing:
    """Where each packed row lies in a padded table of `groups` x `length` cells.

    Attributes:
        cells: (rows,) flat index of each row's cell, no cell twice; None: every cell in order.
    """

    groups: int
    length: int
    cells: Tensor | None = None

    @classmethod
    def of(cls, used: Tensor) -> "Packing":
        """used (groups, length) bool: the cells that hold something, row by row."""
        groups, length = used.shape
        return cls(groups, length, used.flatten().nonzero().squeeze(1))

    def regrouped(self, groups: int) -> "Packing":
        """The same cells in another number of groups."""
        return replace(self, groups=groups, length=self.groups * self.length // groups)

    def pack(self, table: Tensor) -> Tensor:
        """(groups, length, ...) -> (rows, ...)"""
        flat = table.flatten(0, 1)
        return flat if self.cells is None else flat.index_select(0, self.cells)

    def pad(self, rows: Tensor) -> Tensor:
        """(rows, ...) -> (groups, length, ...), zero where there is no row."""
        if self.cells is not None:
            table = rows.new_zeros(self.groups * self.length, *rows.shape[1:])
            rows = table.index_copy(0, self.cells, rows)
        return rows.view(self.groups, self.length, *rows.shape[1:])


class KeysValues(NamedTuple):
    """What attention looks at: each (groups, heads, positions, width / heads)."""

    keys: Tensor
    values: Tensor

    def followed_by(self, others: "KeysValues") -> "KeysValues":
        return KeysValues(*(torch.cat(pair, 2) for pair in zip(self, others, strict=True)))

    def select(self, groups: Tensor) -> "KeysValues":
        return KeysValues(*(tensor.index_select(0, groups) for tensor in self))


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Sinusoidal encoding (rows, width) of positions (rows,); sines at even columns, cosines at odd ones."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angles = positions.unsqueeze(-1) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


class LayerNorm(nn.LayerNorm):
    """weight * (x - mean) / (std + 1e-6) + bias, with the standard deviation of a sample (n - 1), as published.

    The fused kernel divides by sqrt(var + eps) over n: the ratio of the two deviations goes into the weight, and an
    eps of 1e-12 inside the root acts where one of 1e-6 outside does. The difference is 1e-6 / std at most.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-12)
        self.ratio = math.sqrt((width - 1) / width)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight * self.ratio, self.bias, self.eps)


def attend(queries: Tensor, seen: KeysValues, bias: Tensor | None, causal: bool, p: float) -> Tensor:
    """Scaled dot-product attention with dropout `p` on its map; arguments as in Attention.forward."""
    if bias is not None:
        bias = bias.to(queries.dtype)
    if p == 0 or queries.device.type != "cpu":
        return F.scaled_dot_product_attention(queries, *seen, bias, p, causal)
    # PyTorch's fused kernel for CPUs knows no dropout, and what it falls back to does bfloat16 in float32.
    logits = queries / math.sqrt(queries.shape[-1]) @ seen.keys.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias
    if causal:
        logits = logits + torch.full(logits.shape[-2:], MASKED, dtype=logits.dtype).triu(1)
    return dropout(torch.softmax(logits, -1), p) @ seen.values


def split_heads(rows: Tensor, packing: Packing, heads: int) -> Tensor:
    """Packed rows (rows, width) -> (groups, heads, length, width / heads)."""
    parts = packing.pad(rows).unflatten(-1, (heads, rows.shape[-1] // heads))
    return parts.transpose(1, 2)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head attention in three parts, since keys and values often outlive the queries.

    Structured pruning may leave its layers fewer outputs than `width`, or none: then it is the bias of `output`.
    A bias of the keys adds the same to all logits of a query: published models have one, which learns nothing.
    """

    ROLES: ClassVar[tuple[str, str, str]] = PROJECTIONS["none"]  # the layers that make queries, keys and values
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear

    def __init__(
        self, width: int, heads: int, dropout: float, *, outputs: int | None = None, key_bias: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        for name in dict.fromkeys(self.ROLES):
            self.add_module(name, nn.Linear(width, width, bias=key_bias or name != "key"))
        self.output = nn.Linear(width, outputs or width)

    @property
    def layers(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """What makes queries, keys and values; two of them may be one layer."""
        query, key, value = (cast(nn.Linear, self.get_submodule(name)) for name in self.ROLES)
        return query, key, value

    def remember(self, rows: Tensor, packing: Packing) -> KeysValues:
        """Keys and values of packed rows."""
        _, key, value = self.layers
        keys = split_heads(key(rows), packing, self.heads)
        return KeysValues(keys, keys if value is key else split_heads(value(rows), packing, self.heads))

    def forward(
        self, rows: Tensor, packing: Packing, seen: KeysValues, bias: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """What packed rows (rows, width) find in `seen`, whose groups are those of `packing`; (rows, outputs).

        Args:
            bias: added to the logits; broadcasts to (groups, heads, length, positions).
            causal: position i sees positions 0 to i.
        """
        return self.output(self.find(rows, packing, seen, bias, causal))  # type: ignore[no-any-return]

    def find(
        self, rows: Tensor, packing: Packing, seen: KeysValues, bias: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """What `output` reads: all heads' means of values, side by side; arguments as above."""
        if not self.output.in_features:
            return rows[:, :0]
        queries = split_heads(self.layers[0](rows), packing, self.heads)
        found = attend(queries, seen, bias, causal, self.dropout if self.training else 0.0)
        return packing.pack(found.transpose(1, 2).flatten(2))

    def fold(self, norm: LayerNorm) -> None:
        """Takes over `norm`, which all of its layers and nothing else read, and `fold_biases`; see
        laconic.compress.fold."""
        fold_layer_norm(norm, list(dict.fromkeys(self.layers)))
        self.fold_biases()

    def fold_across(self, norm: LayerNorm) -> list[nn.Linear]:
        """Where queries and what they look at are read behind norms of their own: takes over that of the queries, and
        gives the layers that can take over the other one. None can where one layer reads both."""
        query, key, value = self.layers
        if query is key:
            return []
        fold_layer_norm(norm, [query])
        return list(dict.fromkeys((key, value)))

    def fold_biases(self) -> None:
        """Does without the biases of keys and values; see laconic.compress.fold."""
        query, key, value = self.layers
        fold_attention_biases(None if key is query else key, value, self.output)


class KeyValueAttention(Attention):
    """Attention whose keys are its values (Tan et al. 2022, arXiv 2202.05451)."""

    ROLES = PROJECTIONS["kv"]


class QueryKeyAttention(Attention):
    """Attention whose queries and keys come from one layer (Tan et al. 2022)."""

    ROLES = PROJECTIONS["qk"]


ATTENTIONS: dict[Sharing, type[Attention]] = {"none": Attention, "kv": KeyValueAttention, "qk": QueryKeyAttention}


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, rows: Tensor) -> Tensor:
        return self.outer(dropout(F.relu(self.inner(rows)), self.dropout, self.training))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward net where there is one, each as x + dropout(f(norm(x)))."""

    def __init__(self, width: int, attention: Attention, feed_forward: FeedForward | None, dropout: float) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = attention
        self.feed_forward_norm = LayerNorm(width) if feed_forward else None
        self.feed_forward = feed_forward
        self.dropout = dropout

    def forward(self, x: Tensor, packing: Packing, bias: Tensor | None) -> Tensor:
        """x (rows, width) -> the same; `bias` as in Attention."""
        normed = self.attention_norm(x)
        found = self.attention(normed, packing, self.attention.remember(normed, packing), bias)
        x = x + dropout(found, self.dropout, self.training)
        if self.feed_forward is None or self.feed_forward_norm is None:
            return x
        return x + dropout(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training)

    def fold(self) -> None:
        """Moves gains and biases of the norms on; see laconic.compress.fold."""
        self.attention.fold(self.attention_norm)
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            fold_layer_norm(self.feed_forward_norm, [self.feed_forward.inner])


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to a memory, feed-forward net, each as x + dropout(f(norm(x)))."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, share: Sharing = "none") -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = ATTENTIONS[share](width, heads, dropout)
        self.memory_norm = LayerNorm(width)
        self.memory_attention = ATTENTIONS[share](width, heads, dropout)
        self.feed_forward_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width, feed_forward, dropout)
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        sequences: Packing,
        past: KeysValues | None,
        memories: Packing,
        memory: KeysValues,
        bias: Tensor | None,
    ) -> tuple[Tensor, KeysValues]:
        """x (rows, width) -> the same, and the self-attention's keys and values so far.

        Args:
            sequences: the rows by sequence. Whole sequences, or with `past` the next position of each.
            past: keys and values of the positions before; None: there are none.
            memories: the rows by the memory they look at; sequences may share one.
            memory: keys and values of `memory_attention`.
            bias: on the logits of the memory's positions.
        """
        normed = self.attention_norm(x)
        seen = self.attention.remember(normed, sequences)
        if past is not None:
            seen = past.followed_by(seen)
        found = self.attention(normed, sequences, seen, causal=past is None)
        x = x + dropout(found, self.dropout, self.training)
        found = self.memory_attention(self.memory_norm(x), memories, memory, bias)
        x = x + dropout(found, self.dropout, self.training)
        return x + dropout(self.feed_forward(self.feed_forward_norm(x)), self.dropout, self.training), seen

    def fold(self) -> list[nn.Linear]:
        """Moves gains and biases of the norms on, but for what is made of the memory; see laconic.compress.fold.
        Returns the layers that can take over the memory's norm; `memory_attention.fold_biases` is to follow that."""
        self.attention.fold(self.attention_norm)
        fold_layer_norm(self.feed_forward_norm, [self.feed_forward.inner])
        return self.memory_attention.fold_across(self.memory_norm)
