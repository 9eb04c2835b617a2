"""Up-Down against a plain loop of torch's own LSTM cells: values, all gradients, search; sizes of the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.errors import ConfigError
from laconic.models.layers import Features
from laconic.models.unrolled import Order
from laconic.models.up_down import UpDown
from laconic.spec.captioners import UpDownConfig

SMALL = UpDownConfig(17, grid_channels=6, pooled_channels=5, word=4, hidden=7, attention=3, dropout=0.0)


def make() -> UpDown:
    """A small captioner in float64, every parameter drawn, biases too."""
    torch.manual_seed(0)
    model = UpDown(SMALL).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
    return model


def make_features(padded: bool = True) -> Features:
    """Three images of 9, 4 and 1 regions, or of 9 each."""
    torch.manual_seed(1)
    return Features(
        torch.randn(3, 9, 6, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 5, dtype=torch.float64, requires_grad=True),
        valid=torch.arange(9) < torch.tensor([[9], [4], [1]]) if padded else None,
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


def plain_logits(model: UpDown, features: Features, image: int, words: list[int]) -> list[Tensor]:
    """smp.md 2.2, one caption of one image, one word at a time: logits after each of `words`."""
    valid = torch.ones(9) if features.valid is None else features.valid[image]
    pooled = F.relu(model.pooled(features.pooled[image]))
    values = F.relu(model.region(features.grid[image]))
    keys = model.key(values)
    zeros = torch.zeros(7, dtype=torch.float64)
    attention = language = (zeros, zeros)
    logits = []
    for word in words:
        x = torch.cat([language[0], pooled, F.relu(model.embedding.weight[word])])
        attention = model.attention_lstm(x, attention)
        weights = model.score(torch.tanh(keys + model.query(attention[0]))).squeeze(-1).softmax(0)
        weights = weights * valid
        context = (weights / weights.sum()) @ values
        language = model.language_lstm(torch.cat([context, attention[0]]), language)
        logits.append(model.output(language[0]))
    return logits


def plain_forward(model: UpDown, features: Features, tokens: Tensor) -> Tensor:
    rows = []
    for image, captions in enumerate(tokens):
        for caption in captions:
            length = int((caption[1:] != 0).sum())
            rows += plain_logits(model, features, image, caption[:length].tolist())
    return torch.stack(rows)


def test_the_paper_counts_as_many_parameters():
    model = UpDown(UpDownConfig(10_001, 2048, 2048))
    assert {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()} == {
        "embedding": 10_001_000,
        "pooled": 2_049_000,
        "region": 2_049_000,
        "key": 512_512,
        "query": 512_512,
        "score": 513,
        "attention_lstm": 16_008_000,
        "language_lstm": 12_008_000,
        "output": 10_011_001,
    }
    assert sum(p.numel() for p in model.parameters()) == 53_151_538
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == 53_122_512


@pytest.mark.parametrize("padded", [True, False])
def test_forward_equals_a_plain_loop_with_all_gradients(padded):
    model, features, tokens = make(), make_features(padded), make_tokens()
    inputs = [*model.parameters(), features.grid, features.pooled]
    found, expected = model(features, tokens), plain_forward(model, features, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    torch.manual_seed(2)
    weights = torch.randn_like(expected)
    grads = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    names = [name for name, _ in model.named_parameters()]
    still = [name for name, grad in zip(names, grads[1], strict=False) if grad.abs().max() < 1e-8]
    assert still == ["score.bias"]  # a softmax does not see it


def test_padding_counts_for_nothing():
    model, features, tokens = make(), make_features(), make_tokens()
    expected = model(features, tokens)
    wider = torch.zeros(3, 5, 12, dtype=torch.int64)
    wider[:, 1:4, :8] = tokens  # empty captions before and behind, columns behind
    torch.testing.assert_close(model(features, wider), expected, rtol=1e-12, atol=1e-12)
    anything = torch.where(features.valid.unsqueeze(-1), features.grid, 1e3 * torch.randn_like(features.grid))
    other = replace(features, grid=anything)
    torch.testing.assert_close(model(other, tokens), expected, rtol=1e-12, atol=1e-12)


def test_dropout_reaches_words_regions_pooled_feature_and_output():
    model = make().train()
    features, tokens = make_features(), make_tokens()
    expected = model(features, tokens)
    model.config = replace(SMALL, dropout=0.5)
    assert not torch.allclose(model(features, tokens), expected)
    shapes = []
    model._dropout = lambda x: shapes.append(tuple(x.shape)) or x
    model(features, tokens)
    fed = len(Order(tokens).inputs)
    assert sorted(shapes) == [(3, 7), (3, 9, 7), (fed, 4), (fed, 7)]
    del model._dropout
    model.eval()
    torch.testing.assert_close(model(features, tokens), expected)


def walk(model: UpDown, features: Features, captions: list[list[int]]) -> list[list[Tensor]]:
    """Log-probabilities of the whole vocabulary after each word of each caption, by the search protocol."""
    order = np.arange(len(captions))
    state = model.start(features)
    found = [[] for _ in captions]
    for t in range(max(map(len, captions))):
        live = [row for row in order if t < len(captions[row])]
        state = model.select(state, np.array([list(order).index(row) for row in live]))
        order = np.array(live)
        values, ids, state = model.step(state, np.array([captions[row][t] for row in live]), k=1000)
        for row, v, i in zip(live, values, ids, strict=True):
            found[row].append(torch.empty(len(v)).scatter(0, torch.from_numpy(i), torch.from_numpy(v)))
    return found


def test_search_steps_equal_the_whole_forward():
    model, features = make().eval(), make_features()
    captions = [[2, 5, 6, 7], [2], [2, 9, 9, 1, 12, 4]]
    found = walk(model, features, captions)
    for image, words in enumerate(captions):
        tokens = torch.tensor([[[*words, 3]]])
        expected = F.log_softmax(model(features[image : image + 1], tokens), -1)
        torch.testing.assert_close(torch.stack(found[image]).double(), expected, rtol=1e-5, atol=1e-5)


def test_select_leaves_the_old_state_alone():
    model, features = make().eval(), make_features()
    _, _, state = model.step(model.start(features), np.array([2, 2, 2]), 3)
    values, ids, _ = model.step(state, np.array([5, 6, 7]), 4)
    rows = np.array([2, 0, 0, 2])
    some, some_ids, _ = model.step(model.select(state, rows), np.array([7, 5, 5, 7]), 4)
    np.testing.assert_allclose(some, values[rows], rtol=1e-6)
    assert np.array_equal(some_ids, ids[rows])
    again, _, _ = model.step(state, np.array([5, 6, 7]), 4)
    assert np.array_equal(again, values)


def test_bfloat16_stays_close_to_float32():
    torch.manual_seed(0)
    model = UpDown(UpDownConfig(200, 32, 16, word=32, hidden=64, attention=32)).eval()
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
        if name != "score.bias":  # its gradient is rounding only
            assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99, name


def test_a_masked_matrix_is_masked_once_per_step():
    accesses = []

    class Mask(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            accesses.append(weight.shape)
            return weight * 1

    model = make()
    matrices = [p.shape for p in model.parameters() if p.ndim > 1]
    for module in list(model.modules())[1:]:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim > 1:
                torch.nn.utils.parametrize.register_parametrization(module, name, Mask(), unsafe=True)
    model(make_features(), make_tokens()).sum().backward()
    assert sorted(accesses) == sorted(matrices)


@pytest.mark.parametrize(
    ("option", "value"), [("hidden", 0), ("word", -1), ("attention", 0), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(ConfigError, match=f"{option} = {value}"):
        replace(SMALL, **{option: value})
