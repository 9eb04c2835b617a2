"""Soft-Attention against a plain loop over words: values, all gradients, search; sizes of the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.errors import ConfigError
from laconic.models.layers import Features
from laconic.models.soft_attention import SoftAttention
from laconic.spec.captioners import SoftAttentionConfig

SMALL = SoftAttentionConfig(
    17, grid_channels=6, pooled_channels=5, word=4, hidden=7, dropout=0.0, attention_dropout=0.0
)
BOS, EOS = 2, 3
CELLS = ("lstm", "gru")


def make(cell: str) -> SoftAttention:
    """A small captioner in float64, every parameter drawn, biases too."""
    torch.manual_seed(0)
    model = SoftAttention(replace(SMALL, cell=cell)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def make_features(images: int = 3) -> Features:
    torch.manual_seed(1)
    return Features(
        torch.randn(images, 9, 6, dtype=torch.float64, requires_grad=True),
        torch.randn(images, 5, dtype=torch.float64, requires_grad=True),
    )


def make_tokens() -> Tensor:
    """Three images of three captions, of many lengths; one caption is padding only."""
    captions = [
        [[2, 5, 6, 7, 3], [2, 8, 3], [2, 9, 9, 9, 9, 9, 3]],
        [[2, 3], [2, 10, 11, 12, 13, 3], []],
        [[2, 14, 15, 3], [2, 16, 1, 3], [2, 4, 3]],
    ]
    tokens = torch.zeros(3, 3, 8, dtype=torch.int64)  # one column more than needed
    for i, some in enumerate(captions):
        for j, ids in enumerate(some):
            tokens[i, j, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return tokens


def plain_logits(model: SoftAttention, features: Features, image: int, words: list[int]) -> list[Tensor]:
    """smp.md 2.1, one caption of one image, one word at a time: logits after each of `words`."""
    m, size = model, model.config.hidden
    grid, pooled = features.grid[image], features.pooled[image]
    hidden, cell = m.initial.weight @ pooled, torch.zeros(size, dtype=grid.dtype)
    context = torch.zeros(size, dtype=grid.dtype)
    logits = []
    for word in words:
        x = torch.cat([m.embedding.weight[word], context])
        gates = m.gates.weight @ torch.cat([x, hidden]) + m.gates.bias
        if m.config.cell == "lstm":
            i, f, g, o = gates.split(size)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            r, u = gates.sigmoid().split(size)
            new = m.candidate.weight @ torch.cat([x, r * hidden]) + m.candidate.bias
            hidden = u * hidden + (1 - u) * new.tanh()
        logits.append(m.output.weight @ hidden + m.output.bias)
        scores = torch.stack([m.score.weight[0] @ (m.key.weight @ p + m.query.weight @ hidden).tanh() for p in grid])
        weights = scores.softmax(0)
        context = sum(w * (m.value.weight @ p) for w, p in zip(weights, grid, strict=True))
    return logits


def plain_forward(model: SoftAttention, features: Features, tokens: Tensor) -> Tensor:
    rows = []
    for image, captions in enumerate(tokens):
        for caption in captions:
            length = int((caption[1:] != 0).sum())
            rows += plain_logits(model, features, image, caption[:length].tolist())
    return torch.stack(rows)


@pytest.mark.parametrize(("cell", "parameters"), [("lstm", 11_923_178), ("gru", 11_267_306)])
def test_the_paper_counts_as_many_parameters(cell, parameters):
    config = SoftAttentionConfig(9962, grid_channels=832, pooled_channels=1024, cell=cell)
    model = SoftAttention(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    biases = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    assert biases == {"lstm": 12_010, "gru": 11_498}[cell]


@pytest.mark.parametrize("cell", CELLS)
def test_initial_biases_are_tensorflows(cell):
    model = SoftAttention(replace(SMALL, cell=cell))
    ones = [0, 1, 0, 0] if cell == "lstm" else [1, 1]
    assert model.gates.bias.tolist() == [float(one) for one in ones for _ in range(7)]
    assert not model.output.bias.any()


@pytest.mark.parametrize("cell", CELLS)
def test_forward_equals_a_plain_loop_with_all_gradients(cell):
    model, features, tokens = make(cell), make_features(), make_tokens()
    inputs = [*model.parameters(), features.grid, features.pooled]
    found, expected = model(features, tokens), plain_forward(model, features, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    torch.manual_seed(2)
    weights = torch.randn_like(expected)
    grads = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    assert all(bool(g.any()) for g in grads[1])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_counts_for_nothing(cell):
    model, features, tokens = make(cell), make_features(), make_tokens()
    expected = model(features, tokens)
    wider = torch.zeros(3, 5, 12, dtype=torch.int64)
    wider[:, 1:4, :8] = tokens  # empty captions before and behind, columns behind
    torch.testing.assert_close(model(features, wider), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_reaches_embedding_output_context_and_attention(cell):
    model = make(cell).train()
    features, tokens = make_features(), make_tokens()
    expected = model(features, tokens)
    for option in ("dropout", "attention_dropout"):
        model.config = replace(model.config, dropout=0.0, attention_dropout=0.0)
        model.config = replace(model.config, **{option: 0.5})
        assert not torch.allclose(model(features, tokens), expected)
        model.eval()
        torch.testing.assert_close(model(features, tokens), expected)
        model.train()


def walk(model: SoftAttention, features: Features, captions: list[list[int]]) -> list[list[Tensor]]:
    """Log-probabilities of the whole vocabulary after each word of each caption, by the search protocol."""
    order = torch.arange(len(captions)).numpy()
    state = model.start(features)
    found = [[] for _ in captions]
    for t in range(max(map(len, captions))):
        live = [row for row in order if t < len(captions[row])]
        state = model.select(state, np.array([list(order).index(row) for row in live]))
        order = np.array(live)
        tokens = np.array([captions[row][t] for row in live])
        values, ids, state = model.step(state, tokens, k=1000)
        assert values.shape == ids.shape == (len(live), model.config.vocabulary)
        assert (np.diff(values) <= 0).all()
        for row, v, i in zip(live, values, ids, strict=True):
            log_probs = torch.empty(len(v))
            log_probs[torch.from_numpy(i)] = torch.from_numpy(v)
            found[row].append(log_probs)
    return found


@pytest.mark.parametrize("cell", CELLS)
def test_search_steps_equal_the_whole_forward(cell):
    model, features = make(cell).eval(), make_features()
    captions = [[2, 5, 6, 7], [2], [2, 9, 9, 1, 12, 4]]
    found = walk(model, features, captions)
    for image, words in enumerate(captions):
        tokens = torch.tensor([[[*words, EOS]]])
        one = Features(features.grid[image : image + 1], features.pooled[image : image + 1])
        expected = F.log_softmax(model(one, tokens), -1)
        torch.testing.assert_close(torch.stack(found[image]).double(), expected, rtol=1e-5, atol=1e-5)


def test_select_repeats_reorders_and_leaves_the_old_state_alone():
    model, features = make("lstm").eval(), make_features()
    state = model.start(features)
    _, _, state = model.step(state, np.array([2, 2, 2]), 3)
    values, ids, _ = model.step(state, np.array([5, 6, 7]), 4)
    rows = np.array([2, 0, 0, 2])
    some, some_ids, _ = model.step(model.select(state, rows), np.array([7, 5, 5, 7]), 4)
    np.testing.assert_allclose(some, values[rows], rtol=1e-6)
    assert np.array_equal(some_ids, ids[rows])
    again, _, _ = model.step(state, np.array([5, 6, 7]), 4)
    assert np.array_equal(again, values)


def test_bfloat16_stays_close_to_float32():
    torch.manual_seed(0)
    model = SoftAttention(SoftAttentionConfig(200, 32, 16, word=32, hidden=64, dropout=0.0))
    model.eval()
    features = Features(torch.randn(4, 9, 32), torch.randn(4, 16))
    tokens = torch.randint(4, 200, (4, 5, 12))
    grads = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(features, tokens)
        loss = F.cross_entropy(logits.float(), tokens[:, :, 1:].flatten())
        grads.append((loss, torch.autograd.grad(loss, list(model.parameters()))))
    (expected, exact), (found, rough) = grads
    assert found.item() == pytest.approx(expected.item(), rel=2e-3)
    for (name, parameter), a, b in zip(model.named_parameters(), exact, rough, strict=True):
        assert b.dtype == parameter.dtype
        assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99, name


@pytest.mark.parametrize(
    ("option", "value"), [("hidden", 0), ("word", -1), ("dropout", 1.0), ("attention_dropout", -0.1)]
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(ConfigError, match=f"{option} = {value}"):
        replace(SMALL, **{option: value})
