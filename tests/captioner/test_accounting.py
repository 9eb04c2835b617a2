"""Accounting against the paper's figures, PyTorch's file sizes, and operations written out by hand."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from laconic.captioner.accounting import OperationCounter, Weights, caption_operations, coo_bytes, count_weights
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.models.captioners import CAPTIONERS
from laconic.models.encoders import build_encoder
from laconic.models.soft_attention import SoftAttention
from laconic.spec.captioners import SoftAttentionConfig
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

PAPER_VOCABULARY = 9962
INCEPTION = SoftAttentionConfig(PAPER_VOCABULARY, grid_channels=832, pooled_channels=1024)


def captioner(encoder: str = "mobilenet_v1_025", words: int = 30, **options) -> ImageCaptioner:
    vocabulary = Vocabulary((*SPECIALS, *(f"word{i}" for i in range(words - len(SPECIALS)))))
    config = ModelConfig(EncoderConfig(encoder, size=64), DecoderConfig(options=options))
    torch.manual_seed(0)
    return ImageCaptioner(config, vocabulary)


# Weights


@pytest.mark.parametrize(
    ("cell", "total", "prunable"), [("lstm", 11_923_178, 11_911_168), ("gru", 11_267_306, 11_255_808)]
)
def test_soft_attention_has_the_papers_weights(cell, total, prunable):
    with torch.device("meta"):  # nothing is initialised
        shapes = {name: list(p.shape) for name, p in SoftAttention(replace(INCEPTION, cell=cell)).named_parameters()}
    found = count_weights(shaped(shapes))
    assert (found.total, found.prunable) == (total, prunable)
    assert (found.non_zeros, found.sparsity) == (total, 0.0)


def shaped(shapes: dict[str, list[int]]) -> nn.Module:
    """A model of ones with parameters of these shapes, each in a module of its own."""
    model = nn.Module()
    for name, shape in shapes.items():
        kind = "bias" if len(shape) == 1 else "weight"
        model.add_module(name.replace(".", "_"), part := nn.Module())
        part.register_parameter(kind, nn.Parameter(torch.ones(1).expand(shape)))
    return model


@pytest.mark.parametrize(
    ("encoder", "word", "hidden", "channels", "millions"),
    [
        ("mobilenet_v1", 256, 512, 1024, 15.33),
        ("mobilenet_v1_050", 88, 128, 512, 3.37),
        ("mobilenet_v1_025", 88, 128, 256, 2.67),
    ],
)
def test_models_of_the_papers_table_4(encoder, word, hidden, channels, millions):
    config = SoftAttentionConfig(PAPER_VOCABULARY, channels, channels, word=word, hidden=hidden)
    with torch.device("meta"):
        decoder, network = SoftAttention(config), build_encoder(EncoderConfig(encoder, norm=True))
    total = sum(p.numel() for module in (decoder, network) for p in module.parameters())
    assert round(total / 1e6, 2) == millions


def test_tied_weights_and_models_of_biases_alone():
    tied = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6))
    tied[1].weight = tied[0].weight
    with torch.no_grad():
        tied[0].weight[:3] = 0
        tied[1].bias.fill_(1)
    assert count_weights(tied) == Weights(total=30, non_zeros=18, prunable=24, prunable_non_zeros=12)
    assert count_weights(tied).sparsity == 0.5
    assert count_weights(nn.LayerNorm(5)) == Weights(10, 5, 0, 0)


# File sizes of Table 2


@pytest.mark.parametrize("model", ["up_down_lstm", "relation_transformer"])
@pytest.mark.parametrize("sparsity", ["0.95", "0.991"])
@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("fp16", 2)])
def test_coo_sizes_are_those_of_the_papers_files(shared, model, sparsity, precision, size):
    row = json.loads((shared / "golden/smp/f_size_accounting.json").read_text())[model][sparsity]
    found = coo_bytes(row["nnz"], row["dense_elems"], size)
    assert found == row["index_bytes"] + row[f"value_bytes_{precision}"] + size * row["dense_elems"]
    container = row[f"file_{precision}"] - found  # pickle and zip, about 130 bytes a tensor and more
    assert 0 < container < 200_000


def test_prunable_weights_of_the_big_captioners(shared):
    tables = json.loads((shared / "golden/smp/b_full_size_param_tables.json").read_text())
    for name in ("up_down_lstm", "relation_transformer"):
        model, masked = shaped(tables[name]["params"]), tables[f"{name}_prune"]["mask_params"]
        found = count_weights(model)
        assert (found.total, found.prunable) == (tables[name]["total_excl_masks"], masked)


# Operations


def by_hand(decoder: SoftAttention, positions: int, words: int) -> int:
    """Soft-Attention, multiply-adds times two, dense."""
    c = decoder.config
    gates = 4 if c.cell == "lstm" else 3
    once = 2 * positions * c.grid_channels * c.hidden + c.pooled_channels * c.hidden
    recurrence = gates * c.hidden * (c.word + 2 * c.hidden)
    attention = c.hidden**2 + 2 * positions * c.hidden
    return 2 * (once + (words + 1) * (recurrence + attention + c.hidden * c.vocabulary))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("words", [0, 9])
def test_dense_operations_are_those_written_out(cell, words):
    model = captioner(cell=cell, word=12, hidden=16)
    assert caption_operations(model, words).decoder == by_hand(model.decoder, 4, words)


def test_mobilenet_v2_has_its_published_multiply_adds():
    model = captioner("mobilenet_v2", word=4, hidden=4)
    # 300.8 million with the classifier (arXiv 1801.04381, table 4: 300 M at 224 pixels); 64 pixels are 4 / 49 of it
    assert caption_operations(model).encoder == pytest.approx(2 * (300.8e6 - 1.28e6) * 4 / 49, rel=0.01)


def test_zeros_of_each_weight_are_not_counted():
    model = captioner(word=8, hidden=8)
    dense = caption_operations(model)
    steps, decoder = 10, model.decoder
    with torch.no_grad():
        decoder.output.weight[:5] = 0  # 5 of 30 rows, used once a step
        decoder.gates.weight[:, :2] = 0  # part of the words' share, a view of the matrix
        decoder.key.weight[0, 0] = 0  # used once a position
        model.encoder.conv0.weight[0] = 0  # 27 weights of a 3x3 kernel, used at 32 x 32 places
    pruned = caption_operations(model)
    assert dense.decoder - pruned.decoder == 2 * (steps * 5 * 8 + steps * 2 * 32 + 4)
    assert dense.encoder - pruned.encoder == 2 * 27 * 32 * 32
    assert pruned.total == pruned.encoder + pruned.decoder


def test_a_model_of_zeros_leaves_the_products_of_activations():
    model = captioner(word=8, hidden=8)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
    assert caption_operations(model).decoder == 2 * 10 * 4 * 8  # weighted sums of the values


SMALL = {
    "soft_attention": {"word": 64, "hidden": 64},
    "up_down": {"word": 64, "hidden": 64, "attention": 32},
    "object_relation": {"layers": 2, "heads": 4, "width": 64, "feed_forward": 128},
    "aoanet": {"layers": 2, "heads": 4, "width": 64, "feed_forward": 128},
}


@pytest.mark.parametrize("encoder", ["mobilenet_v1_025", "regions"])
@pytest.mark.parametrize("name", CAPTIONERS)
def test_every_captioner_can_be_counted(name, encoder):
    vocabulary = Vocabulary((*SPECIALS, "dog"))
    config = ModelConfig(EncoderConfig(encoder, size=64, channels=8), DecoderConfig(name, SMALL[name]))
    model = ImageCaptioner(config, vocabulary)
    dense = caption_operations(model)
    assert (dense.encoder == 0) == (encoder == "regions")
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter[1::2] = 0  # every other row
    halves = caption_operations(model).decoder / dense.decoder
    assert 0.5 <= halves < 0.6  # products of activations and matrices of one row stay


@pytest.mark.parametrize("name", CAPTIONERS)
def test_fused_attention_counts_as_its_two_products(name):
    vocabulary = Vocabulary((*SPECIALS, "dog"))
    encoder = EncoderConfig("mobilenet_v1_025", size=64)
    model = ImageCaptioner(ModelConfig(encoder, DecoderConfig(name, SMALL[name])), vocabulary)
    fused = caption_operations(model)
    with sdpa_kernel(SDPBackend.MATH):
        assert caption_operations(model) == fused


def test_bare_fused_attention_is_counted():
    query, keys, values = (torch.ones(2, 3, rows, 8) for rows in (4, 7, 7))
    with OperationCounter(nn.Identity()) as counter:
        F.scaled_dot_product_attention(query, keys, values)
    assert counter.count == 2 * 2 * 3 * 4 * 7 * (8 + 8)


def test_counting_sees_batches_and_products_of_activations():
    layer, x = nn.Linear(6, 5), torch.ones(7, 6)
    with OperationCounter(layer) as counter:
        y = layer(x)
        y @ y.t()
    assert counter.count == 2 * (7 * 6 * 5 + 7 * 7 * 5)
    assert counter.count == 2 * 7 * (math.prod(layer.weight.shape) + 35)
