"""Packing, norm and attention against plain formulas and golden values of the published code."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.models.box_geometry import embed_geometry, relative_geometry
from laconic.models.object_relation import log_relation
from laconic.models.transformer import MASKED, Attention, KeysValues, LayerNorm, Packing, attend, sinusoids


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=6))
def test_packing_is_undone_by_padding(used):
    mask = torch.tensor(used)
    packing = Packing.of(mask)
    rows = torch.randn(int(mask.sum()), 2)
    table = packing.pad(rows)
    assert torch.equal(table[mask], rows)
    assert not table[~mask].any()
    assert torch.equal(packing.pack(table), rows)
    assert torch.equal(packing.regrouped(1).pad(rows)[0], table.flatten(0, 1))


def test_a_full_packing_copies_nothing():
    rows = torch.randn(6, 2)
    table = Packing(2, 3).pad(rows)
    assert table.shape == (2, 3, 2)
    assert table.data_ptr() == rows.data_ptr() == Packing(2, 3).pack(table).data_ptr()


def test_layer_norm_is_the_published_one():
    torch.manual_seed(0)
    norm = LayerNorm(12).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(5, 12, dtype=torch.float64)
    for scale in (1e3, 1, 1e-2):
        y = x * scale
        expected = norm.weight * (y - y.mean(-1, keepdim=True)) / (y.std(-1, keepdim=True) + 1e-6) + norm.bias
        torch.testing.assert_close(norm(y), expected, rtol=0, atol=2e-5 / scale)
    assert torch.equal(norm(torch.ones_like(x)), norm.bias.expand(5, 12))


def test_layer_norm_golden(golden):
    held = json.loads((golden / "smp/c_losses_and_lr.json").read_text())["layernorm"]
    torch.testing.assert_close(LayerNorm(6)(torch.tensor(held["x"])), torch.tensor(held["y"]), rtol=0, atol=1e-5)


def test_sinusoids_are_the_published_ones(golden):
    with np.load(golden / "smp/c_ort_box.npz") as held:
        expected = torch.from_numpy(held["ort_pe_first12"])
    torch.testing.assert_close(sinusoids(torch.arange(12), 16), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("causal", "biased"), [(False, False), (True, False), (False, True)])
def test_attention_with_dropout_equals_the_fused_kernel(causal, biased):
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(3, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = [queries, keys, values, *([bias] if bias is not None else [])]
    # of 65,536 levels so small a p drops none: only the computation differs
    found, expected = (attend(queries, KeysValues(keys, values), bias, causal, p) for p in (1e-9, 0.0))
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_box_attention_golden(golden):
    with np.load(golden / "smp/c_ort_box.npz") as file:
        held = {key.removeprefix("att_"): torch.from_numpy(file[key]) for key in file if key.startswith("att_")}
    attention = Attention(8, 2, dropout=0.1).eval()
    names = ("query", "key", "value", "output")
    attention.load_state_dict(
        {f"{n}.{part}": held[f"w__linears.{i}.{part}"] for i, n in enumerate(names) for part in ("weight", "bias")}
    )
    relation = torch.nn.Linear(64, 2)
    relation.load_state_dict(
        {part: torch.cat([held[f"w__WGs.{head}.{part}"] for head in (0, 1)]) for part in ("weight", "bias")}
    )
    bias = log_relation(relation, embed_geometry(relative_geometry(held["boxes"])))
    bias = bias + torch.where(held["mask"].unsqueeze(1) > 0, 0.0, MASKED)
    packing, rows = Packing(1, 4), held["x"][0]
    found = attention(rows, packing, attention.remember(rows, packing), bias)
    torch.testing.assert_close(found, held["out"][0], rtol=0, atol=2e-5)
