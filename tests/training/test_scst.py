"""Self-critical training: golden loss, baselines, the end token, gradients, and that rewards rise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, greedy
from laconic.errors import ConfigError
from laconic.metrics.rewards import Rewards
from laconic.models.captioners import build_captioner
from laconic.models.layers import Features
from laconic.models.soft_attention import SoftAttention
from laconic.spec.captioners import CAPTIONERS, SoftAttentionConfig
from laconic.spec.tokens import SPECIAL
from laconic.text import Vocabulary
from laconic.training.batches import Batch, make_batches
from laconic.training.loop import Run, cross_entropy
from laconic.training.scst import Scst, SelfCritical, as_tokens, self_critical_loss
from laconic.training.settings import Training

CAPTIONS = [
    ["a red dog runs", "a dog runs on grass"],
    ["a cat sleeps on a mat", "the cat sleeps"],
    [],
    ["two birds fly over a lake", "birds fly"],
    ["a man rides a red horse", "a man on a horse"],
]
VOCABULARY = Vocabulary.build((c for some in CAPTIONS for c in some), 1)
IDS = {word: i for i, word in enumerate(VOCABULARY.words)}


TAUGHT = Training(epochs=25, batch=4, learning_rate=1e-2, warmup=0, precision="float32", mirror=False)


class Source:
    """Random features, the same for a row each time."""

    valid, skipped = np.array([True, True, False, True, True]), ()

    def batch(self, rows, mirrored=None):
        rng = np.random.default_rng(0)
        grid = rng.normal(size=(len(CAPTIONS), 6, 3)).astype(np.float32)[rows]
        return Features(torch.from_numpy(grid), torch.from_numpy(grid.reshape(len(rows), -1)))


def make_model(seed: int = 0, **options) -> SoftAttention:
    torch.manual_seed(seed)
    sizes = {"word": 12, "hidden": 24, "dropout": 0.0, "attention_dropout": 0.0, **options}
    return SoftAttention(SoftAttentionConfig(len(VOCABULARY), 3, 18, **sizes))


def batches(size: int = 4):
    return make_batches(Source(), CAPTIONS, VOCABULARY, max_length=8, size=size, seed=1)


def objective(**options) -> SelfCritical:
    return SelfCritical(Scst(**{"max_length": 8, **options}), CAPTIONS, VOCABULARY)


def said(caption: str, finished: bool = True) -> Hypothesis:
    ids = tuple(IDS[word] for word in caption.split())
    return Hypothesis(ids, -1.0, (-0.1,) * (len(ids) + finished), finished)


def test_golden_loss(golden):
    data = json.loads((golden / "smp" / "c_losses_and_lr.json").read_text())["scst"]
    mask = torch.tensor(data["mask"], dtype=torch.bool)
    log_probs = torch.tensor(data["sample_logprobs"]).reshape(mask.shape)
    advantages = torch.tensor(data["reward"])[:, None].expand(mask.shape)
    loss = self_critical_loss(log_probs[mask], advantages[mask])
    assert loss.item() == pytest.approx(data["loss"], rel=1e-6)


def test_rewards_and_both_baselines():
    samples = [[said("a red dog runs"), said("a dog"), said("a lake")], [said("a horse"), said("a man on a horse")]]
    rows = np.array([0, 4])
    references = [[[*(IDS[w] for w in c.split()), 3] for c in some] for some in CAPTIONS if some]
    scored = Rewards(references)
    flat = [(*h.tokens, 3) for some in samples for h in some]
    expected = scored(flat, [0, 0, 0, 3, 3])
    rewards, baseline = objective().compare(samples, [], rows)
    np.testing.assert_allclose(rewards, expected)
    a, b, c, d, e = expected
    np.testing.assert_allclose(baseline, [(b + c) / 2, (a + c) / 2, (a + b) / 2, e, d])
    rewards, baseline = objective(baseline="greedy").compare(samples, [[said("a dog runs")], [said("a man")]], rows)
    np.testing.assert_allclose(rewards, expected)
    greedy_rewards = scored([(IDS["a"], IDS["dog"], IDS["runs"], 3), (IDS["a"], IDS["man"], 3)], [0, 3])
    np.testing.assert_allclose(baseline, greedy_rewards[[0, 0, 0, 1, 1]])


def test_the_end_counts_unless_switched_off():
    samples = [[said("a dog runs"), said("a dog runs", finished=False)]]
    rewards, _ = objective().compare(samples, [], np.array([0]))
    assert rewards[0] > rewards[1]
    published, _ = objective(eos_in_reward=False).compare(samples, [], np.array([0]))
    assert published[0] == published[1]


def test_samples_become_tokens():
    tokens = as_tokens([[said("a dog")], [said("a", finished=False), said("")]])
    a, dog = IDS["a"], IDS["dog"]
    assert tokens.tolist() == [[[2, a, dog, 3], [0] * 4], [[2, a, 0, 0], [2, 3, 0, 0]]]


@pytest.mark.parametrize("sampling", ["random", "beam"])
@pytest.mark.parametrize("pruned", [False, True])
def test_the_second_pass_sees_what_the_search_saw(sampling, pruned, monkeypatch):
    """Teacher-forced log-probabilities of the samples are those of the search, under one draw of the masks."""
    model = make_model().train()
    if pruned:
        Pruner(model, Supermask(0.5, init=1.0), steps=10)
    batch = batches()(0, 0)
    seen = []
    critic = objective(samples=3, sampling=sampling)
    compare = critic.compare
    monkeypatch.setattr(critic, "compare", lambda s, *rest: (seen.extend(s), compare(s, *rest))[1])
    critic(model, batch)
    tokens = as_tokens(seen)
    following = tokens[:, :, 1:]
    log_probs = torch.log_softmax(model(batch.inputs, tokens), -1)
    found = log_probs.gather(1, following[following != 0][:, None]).squeeze(1)
    expected = torch.tensor([p for some in seen for h in some for p in h.log_probs])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("soft_attention", {"word": 8, "hidden": 12, "dropout": 0.5}),
        ("up_down", {"word": 8, "hidden": 12, "attention": 6, "dropout": 0.5}),
        ("object_relation", {"layers": 1, "width": 8, "heads": 2, "feed_forward": 12, "input_dropout": 0.5}),
        ("aoanet", {"layers": 1, "width": 8, "heads": 2}),
    ],
)
@pytest.mark.parametrize("pruned", [False, True])
def test_samples_are_drawn_without_dropout(name, options, pruned):
    torch.manual_seed(0)
    model = build_captioner(name, CAPTIONERS[name](len(VOCABULARY), 3, 3, **options)).train()
    if pruned:
        Pruner(model, Supermask(0.5, init=1.0), steps=10)
    rng = np.random.default_rng(1)
    inputs = Features(
        torch.from_numpy(rng.normal(size=(6, 9, 3)).astype(np.float32)),
        torch.from_numpy(rng.normal(size=(6, 3)).astype(np.float32)),
    )
    critic = objective(baseline="greedy", samples=2, sampling="beam")
    first, second = (critic._search(model, inputs) for _ in range(2))
    assert first == second
    assert all(module.training for module in model.modules())


def test_a_temperature_is_a_sharper_output_layer():
    model, batch = make_model().eval(), batches()(0, 0)
    torch.manual_seed(3)
    tempered = objective(temperature=0.5)(model, batch)
    with torch.no_grad():
        for parameter in model.output.parameters():
            parameter.mul_(2)
    torch.manual_seed(3)
    torch.testing.assert_close(tempered.mean, objective()(model, batch).mean)
    torch.manual_seed(3)
    assert tempered.mean != objective(temperature=0.5)(model, batch).mean


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_weight_gets_a_gradient(precision):
    """bfloat16, up to torch 2.10: weights cast in the search must not serve the pass that makes gradients."""
    model = make_model().train()
    batch = batches()(0, 0)
    torch.manual_seed(3)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        loss = objective(baseline="greedy")(model, batch)
    loss.mean.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert loss.tokens > 4 * 5
    assert loss.facts.keys() == {"reward", "baseline"}


def test_the_gradient_pushes_better_samples_up():
    """The loss's gradient is that of -sum of advantage * log p, sample by sample."""
    model = make_model().eval()
    batch = Batch(Source().batch(np.array([0])), torch.zeros(1, 1, 1, dtype=torch.long), np.array([0]))
    critic = objective()
    samples = [[said("a red dog runs"), said("a mat")]]
    critic._search = lambda *_: (samples, [])  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def likelihoods() -> list[float]:
        with torch.no_grad():
            return [-cross_entropy(model(batch.inputs, t), t).item() for t in (as_tokens([[h]]) for h in samples[0])]

    before = likelihoods()
    critic(model, batch).mean.backward()
    optimizer.step()
    good, bad = (new - old for new, old in zip(likelihoods(), before, strict=True))
    assert good > 0 > bad


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Weights of a captioner that cross-entropy has taught a little."""
    model = make_model()
    Run(model, batches(), TAUGHT, tmp_path_factory.mktemp("taught")).fit()
    return model.state_dict()


@pytest.mark.parametrize(
    "options",
    [{"samples": 16}, {"samples": 16, "baseline": "greedy"}, {"sampling": "beam", "samples": 3}],
    ids=lambda options: "-".join(options),
)
def test_training_raises_the_reward(taught, options, tmp_path):
    """Of greedy captions, and of the samples as the log tells."""
    model = make_model()
    model.load_state_dict(taught)
    critic = objective(**options)

    def reward() -> float:
        rows = np.array([0, 1, 3, 4])
        found = greedy(model.eval(), Source().batch(rows), Decoding(max_length=8), SPECIAL)
        return float(critic.compare(found, [], rows)[0].mean())

    before = reward()
    settings = replace(TAUGHT, epochs=120, learning_rate=5e-3, schedule="constant")
    run = Run(model, batches(), settings, tmp_path, objective=critic)
    run.fit()
    assert reward() > 1.5 * before
    rows = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert rows[-1]["lr"] == 5e-3
    assert rows[-1]["reward"] > 1.3 * rows[0]["reward"]
    assert {"loss", "baseline"} <= rows[-1].keys()


def test_interrupted_training_ends_like_an_unbroken_one(tmp_path):
    settings = replace(TAUGHT, epochs=6, batch=2, schedule="constant")
    whole = Run(make_model(), batches(2), settings, tmp_path / "whole", objective=objective())
    whole.fit()
    first = Run(make_model(), batches(2), settings, tmp_path / "parts", objective=objective())
    first.steps = 5
    first.fit()
    first.save()
    second = Run(make_model(9), batches(2), settings, tmp_path / "parts", objective=objective())
    second.resume()
    assert second.step == 5
    second.fit()
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples = 1; give at least 2"),
        ({"samples": 0, "baseline": "greedy"}, "samples = 0; give at least 1"),
        ({"samples": 1, "sampling": "beam", "baseline": "greedy"}, "give at least 2"),
        ({"max_length": 0}, "max_length is 0"),
        ({"cider": 0.0, "bleu": 0.0}, "not both 0"),
        ({"bleu": -1.0}, "weights of 0 or more"),
        ({"temperature": 0.0}, "temperature = 0.0; give more than 0"),
        ({"temperature": 0.5, "sampling": "beam"}, "leave it out for a beam"),
    ],
)
def test_options_that_are_not_possible(options, message):
    with pytest.raises(ConfigError, match=message):
        Scst(**options)
