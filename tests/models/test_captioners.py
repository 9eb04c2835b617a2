"""What every captioner of the table must do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from laconic.decode.search import Decoding, decode
from laconic.models.captioners import CAPTIONERS, build_captioner
from laconic.models.layers import Features, cell_boxes
from laconic.spec import captioners as spec
from laconic.spec.tokens import SPECIAL

SOFT_ATTENTION = {"word": 8, "hidden": 12, "dropout": 0.0, "attention_dropout": 0.0}
UP_DOWN = {"word": 8, "hidden": 12, "attention": 6, "dropout": 0.0}
OBJECT_RELATION = {"layers": 2, "width": 8, "feed_forward": 12, "heads": 2, "input_dropout": 0.0, "dropout": 0.0}
AOANET = {
    "layers": 2, "width": 8, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0, "gate_dropout": 0.0,
    "refiner_dropout": 0.0,
}  # fmt: skip
OPTIONS = {
    "soft_attention-lstm": ("soft_attention", {**SOFT_ATTENTION, "cell": "lstm"}),
    "soft_attention-gru": ("soft_attention", {**SOFT_ATTENTION, "cell": "gru"}),
    "up_down": ("up_down", UP_DOWN),
    "object_relation": ("object_relation", OBJECT_RELATION),
    "object_relation-kv": (
        "object_relation",
        {**OBJECT_RELATION, "layers": 3, "share_attention": "kv", "share_layers": (0, 1, 1)},
    ),
    "object_relation-qk": (
        "object_relation",
        {**OBJECT_RELATION, "layers": 3, "share_attention": "qk", "share_layers": (0, 1, 0)},
    ),
    "aoanet": ("aoanet", AOANET),
    "aoanet-feed-forward": ("aoanet", {**AOANET, "layers": 1, "feed_forward": 12}),
    "aoanet-no-refiner": ("aoanet", {**AOANET, "layers": 0}),
    "soft_attention-tied": ("soft_attention", {**SOFT_ATTENTION, "tied": True}),
    "up_down-rank": ("up_down", {**UP_DOWN, "rank": 12}),
    "object_relation-tied": ("object_relation", {**OBJECT_RELATION, "tied": True}),
    "aoanet-tied": ("aoanet", {**AOANET, "tied": True}),
}
VOCABULARY = 30


@pytest.fixture(params=OPTIONS)
def captioner(request):
    name, options = OPTIONS[request.param]
    torch.manual_seed(0)
    model = build_captioner(name, spec.CAPTIONERS[name](VOCABULARY, 3, 5, **options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform, so that images matter
    return model


@pytest.fixture
def features() -> Features:
    torch.manual_seed(1)
    return Features(torch.randn(4, 9, 3).double(), torch.randn(4, 5).double())


def test_every_captioner_is_tested_here():
    assert {name for name, _ in OPTIONS.values()} == set(CAPTIONERS) == set(spec.CAPTIONERS)


def test_logits_come_in_row_major_order_of_the_words(captioner, features):
    tokens = torch.tensor([[[2, 5, 6, 3], [2, 3, 0, 0]]] * 4)
    logits = captioner(features, tokens)
    assert logits.shape == (4 * 4, VOCABULARY)
    first = captioner(features, tokens[:, :1])
    torch.testing.assert_close(logits.view(4, 4, -1)[:, :3], first.view(4, 3, -1))


def test_a_batch_equals_its_images_alone(captioner, features):
    tokens = torch.randint(4, VOCABULARY, (4, 3, 6))
    together = captioner(features, tokens).view(4, -1)
    for i in range(4):
        alone = captioner(features[i : i + 1], tokens[i : i + 1]).view(-1)
        torch.testing.assert_close(alone, together[i], rtol=1e-5, atol=1e-5)
    for decoding in (Decoding(beam=1, max_length=9), Decoding(beam=4, max_length=9)):
        found = decode(captioner, features, decoding, SPECIAL)
        assert len({h[0].tokens for h in found}) > 1
        for i in range(4):
            (alone,) = decode(captioner, features[i : i + 1], decoding, SPECIAL)
            assert [h.tokens for h in alone] == [h.tokens for h in found[i]]


def test_padding_changes_nothing(captioner, features):
    tokens = torch.randint(4, VOCABULARY, (4, 3, 6))
    boxes = cell_boxes(9).double().expand(4, 9, 4)
    plain = replace(features, boxes=boxes)
    padded = Features(
        torch.cat([features.grid, torch.randn(4, 2, 3).double()], 1),
        features.pooled,
        torch.cat([boxes, torch.rand(4, 2, 4).double()], 1),
        torch.arange(11).expand(4, 11) < 9,
    )
    torch.testing.assert_close(captioner(padded, tokens), captioner(plain, tokens), rtol=1e-5, atol=1e-5)
    with_padding, without = (
        decode(captioner, each, Decoding(beam=3, max_length=9), SPECIAL) for each in (padded, plain)
    )
    for ours, theirs in zip(with_padding, without, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert ours[0].score == pytest.approx(theirs[0].score, abs=1e-4)


def test_search_steps_equal_teacher_forcing(captioner, features):
    words = [7, 9, 4, 11, 3]
    tokens = torch.tensor([[[2, *words]]] * 4)
    expected = captioner(features, tokens).log_softmax(-1).view(4, len(words), -1)
    state, before = captioner.start(features), 2
    for t, word in enumerate(words):
        earlier = state
        values, ids, state = captioner.step(earlier, np.full(4, before), VOCABULARY)
        assert values.dtype == np.float32
        assert ids.dtype == np.int64
        best = expected[:, t].topk(VOCABULARY).values.detach().numpy()
        np.testing.assert_allclose(values, best, rtol=1e-5, atol=1e-5)
        picked = expected[:, t].gather(1, torch.from_numpy(ids)).detach().numpy()
        np.testing.assert_allclose(values, picked, rtol=1e-5, atol=1e-5)
        unsorted, every, _ = captioner.step(earlier, np.full(4, before), None)
        np.testing.assert_array_equal(np.take_along_axis(unsorted, ids, 1), values)
        np.testing.assert_array_equal(every, np.broadcast_to(np.arange(VOCABULARY), every.shape))
        before = word


def test_one_step_of_training_learns(captioner, features):
    captioner.train()
    optimizer = torch.optim.Adam(captioner.parameters(), lr=1e-2)
    tokens = torch.randint(4, VOCABULARY, (4, 2, 5))
    losses = []
    for _ in range(5):
        logits = captioner(features, tokens)
        loss = nn.functional.cross_entropy(logits, tokens[:, :, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in captioner.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
