"""Biases and gains that another parameter can take over, so that a packed model does not pay for them.

What the model computes stays the same up to rounding; matrices keep their zeros. Knows layers, not models: which of
them feed which is for the caller to say.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def merge(target: Tensor, other: Tensor) -> None:
    """Moves `other` into `target`, where only their sum counts."""
    target.add_(other)
    other.zero_()


def merge_lstm_biases(model: nn.Module) -> None:
    """Every LSTM adds two biases to its gates: one is enough."""
    for module in model.modules():
        if isinstance(module, nn.LSTM | nn.LSTMCell):
            for name, bias in module.named_parameters(recurse=False):
                if name.startswith("bias_hh"):
                    merge(module.get_parameter(name.replace("bias_hh", "bias_ih")), bias)


@torch.no_grad()
def fold_layer_norm(norm: nn.LayerNorm, readers: Sequence[nn.Linear], unbiased: Sequence[nn.Linear] = ()) -> None:
    """Moves gain and bias of a layer norm into the linear layers that are all that read it.

    `readers` have biases. Those that are `unbiased` take over the gain alone: what the norm's bias makes of them does
    not count, as in the keys of a softmax attention, or the caller has added it elsewhere.
    """
    for reader in readers:
        reader.bias.add_(reader.weight @ norm.bias)
    for reader in (*readers, *unbiased):
        reader.weight.mul_(norm.weight)
    norm.bias.zero_()
    norm.weight.fill_(1.0)


@torch.no_grad()
def fold_attention_biases(key: nn.Linear | None, value: nn.Linear, output: nn.Linear) -> None:
    """Drops the key's bias, where it has one, of a softmax attention, which adds the same to all logits of a query, and
    moves the value's through the output layer: weights of attention add up to one.

    Key and value may be one layer. `key` is None where the layer makes queries, too, whose bias counts.
    """
    output.bias.add_(output.weight @ value.bias)
    value.bias.zero_()
    if key is not None and key.bias is not None:
        key.bias.zero_()
