"""Which parameters of the captioners can be folded away before packing: see laconic.compress.fold.

At full size this empties 8,513 of Up-Down's 29,026 biases and 34,816 of the Object Relation Transformer's 110,913
biases and norm parameters, of which 16,384 gains become 1. The Soft-Attention captioner has nothing to fold.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from laconic.compress.fold import fold_attention_biases, fold_layer_norm, merge, merge_lstm_biases
from laconic.models.object_relation import ObjectRelation
from laconic.models.transformer import DecoderLayer, EncoderLayer
from laconic.models.up_down import UpDown


def fold_biases(captioner: nn.Module) -> None:
    """Folds what is exact, in place; evaluation results stay the same up to rounding."""
    merge_lstm_biases(captioner)
    if isinstance(captioner, UpDown):
        _fold_up_down(captioner)
    if isinstance(captioner, ObjectRelation):
        _fold_object_relation(captioner)


def _fold_up_down(model: UpDown) -> None:
    merge(model.query.bias, model.key.bias)  # scores see key + query only
    with torch.no_grad():
        model.score.bias.zero_()  # a softmax over the regions follows


def _fold_object_relation(model: ObjectRelation) -> None:
    encoders = cast(Iterable[EncoderLayer], model.encoder)
    decoders = list(cast(Iterable[DecoderLayer], model.decoder))
    layers: list[EncoderLayer | DecoderLayer] = [*encoders, *decoders]
    for layer in layers:
        own = layer.attention
        fold_layer_norm(layer.attention_norm, [own.query, own.key, own.value])
        fold_layer_norm(layer.feed_forward_norm, [layer.feed_forward.inner])
        fold_attention_biases(own.key, own.value, own.output)
    memories = [layer.memory_attention for layer in decoders]
    fold_layer_norm(model.encoder_norm, [part for memory in memories for part in (memory.key, memory.value)])
    for layer, memory in zip(decoders, memories, strict=True):
        fold_layer_norm(layer.memory_norm, [memory.query])
        fold_attention_biases(memory.key, memory.value, memory.output)
    fold_layer_norm(model.decoder_norm, [model.output])
