"""AoANet against the published code's values: forward, gradients, a training, search; and against a plain loop."""

import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from laconic.compress.structured.adapters import find_groups
from laconic.decode.search import Decoding, decode
from laconic.errors import ConfigError
from laconic.models.aoanet import AoANet
from laconic.models.layers import Features
from laconic.spec.captioners import AoANetConfig
from laconic.spec.tokens import BOS, EOS, SPECIAL, UNK
from laconic.training.scst import self_critical_loss

SMALL = AoANetConfig(
    17, 6, 5, width=12, heads=3, layers=2, dropout=0.0, attention_dropout=0.0, gate_dropout=0.0, refiner_dropout=0.0
)


# The published code's names and ids


class Words(NamedTuple):
    """Of a published vocabulary, whose id 0 starts and ends captions and whose last one is unknown: our ids, by its."""

    read: list[int]
    said: list[int]

    @classmethod
    def of(cls, size: int) -> "Words":
        words = list(range(len(SPECIAL_IDS), len(SPECIAL_IDS) + size - 2))
        return cls([BOS, *words, UNK], [EOS, *words, UNK])

    def tokens(self, labels: Tensor) -> Tensor:
        """(images, 1, length) of rows 0, words, 0 ..."""
        tokens = torch.zeros(len(labels), 1, labels.shape[1], dtype=torch.int64)
        for row, label in zip(tokens[:, 0], labels.tolist(), strict=True):
            length = label.index(0, 1)
            row[: length + 1] = torch.tensor([BOS, *(self.read[i] for i in label[1:length]), EOS])
        return tokens


SPECIAL_IDS = (SPECIAL.pad, SPECIAL.unk, SPECIAL.bos, SPECIAL.eos)
NAMES = {
    r"^embedding": "embed.0",
    r"^region": "att_embed.0",
    r"^refiner\.(\d+)\.attention\.query": r"refiner.layers.\1.self_attn.linears.0",
    r"^refiner\.(\d+)\.attention\.key": r"refiner.layers.\1.self_attn.linears.1",
    r"^refiner\.(\d+)\.attention\.value": r"refiner.layers.\1.self_attn.linears.2",
    r"^refiner\.(\d+)\.attention\.(output|own)": r"refiner.layers.\1.self_attn.aoa_layer.0",
    r"^refiner\.(\d+)\.attention_norm": r"refiner.layers.\1.sublayer.0.norm",
    r"^refiner\.(\d+)\.feed_forward_norm": r"refiner.layers.\1.sublayer.1.norm",
    r"^refiner\.(\d+)\.feed_forward\.inner": r"refiner.layers.\1.feed_forward.w_1",
    r"^refiner\.(\d+)\.feed_forward\.outer": r"refiner.layers.\1.feed_forward.w_2",
    r"^refiner_norm": "refiner.norm",
    r"^(key|value)\.": "ctx2att.",
    r"^lstm": "core.att_lstm",
    r"^query_norm": "core.attention.norm",
    r"^query\.": "core.attention.linears.0.",
    r"^(found|own)\.": "core.att2ctx.0.",
    r"^output\.": "logit.",
    r"norm\.weight$": "norm.a_2",
    r"norm\.bias$": "norm.b_2",
}


def published_name(name: str) -> str:
    """Name in the published code of one of our parameters, or of the one that it is a part of."""
    for ours, theirs in NAMES.items():
        name = re.sub(ours, theirs, name)
    return name


def part(name: str, width: int) -> tuple[slice, ...]:
    """Where in the published parameter ours lies."""
    if name.startswith("value."):
        return (slice(width),)
    if name == "key.weight":
        return (slice(width, None),)
    if name.endswith(("own.weight", "found.weight", "attention.output.weight")):
        return slice(None), slice(width, None) if name.endswith("own.weight") else slice(width)
    return (slice(None),)


def load(config: AoANetConfig, held: dict[str, Tensor]) -> AoANet:
    """A captioner with published weights; what is said that the published vocabulary does not have is impossible."""
    words = Words.of(len(held["logit.bias"]))
    model = AoANet(config).eval()
    weights = {name: held[published_name(name)][part(name, config.width)] for name in model.state_dict()}
    for name, places in {
        "embedding.weight": words.read,
        "output.weight": words.said,
        "output.bias": words.said,
    }.items():
        table = torch.full((config.vocabulary, *weights[name].shape[1:]), -1e9 if name == "output.bias" else 0.0)
        table[places] = weights[name]
        weights[name] = table
    model.load_state_dict(weights)
    return model


class Published(NamedTuple):
    model: AoANet
    features: Features
    tokens: Tensor
    held: dict[str, Tensor]
    values: dict[str, Any]

    @property
    def words(self) -> Words:
        return Words.of(self.held["logprobs"].shape[-1])

    def log_probs(self, features: Features | None = None, tokens: Tensor | None = None) -> Tensor:
        """(words, published vocabulary)"""
        logits = self.model(features or self.features, self.tokens if tokens is None else tokens)
        return logits.log_softmax(-1)[:, self.words.said]

    def theirs(self, name: str) -> Tensor:
        """A result of theirs for the words that captions have."""
        return self.held[name][self.held["label_masks"][:, 1:] > 0]

    def targets(self) -> Tensor:
        return self.held["labels"][:, 1:][self.held["label_masks"][:, 1:] > 0]


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture
def published(golden) -> Published:
    held = arrays(golden / "aoanet/tiny.npz")
    weights = {name.removeprefix("w__"): held[name] for name in held if name.startswith("w__")}
    model = load(AoANetConfig(25, 12, 1, width=16, heads=4, layers=6), weights)
    features = Features(held["att_feats"], torch.zeros(4, 1), valid=held["att_masks"] > 0)
    values = json.loads((golden / "aoanet/tiny.json").read_text())
    return Published(model, features, Words.of(23).tokens(held["labels"]), held, values)


def test_every_published_weight_has_its_place(published):
    ours = {published_name(name) for name in published.model.state_dict()}
    assert ours == {name.removeprefix("w__") for name in published.held if name.startswith("w__")} - {
        f"refiner.layers.{i}.self_attn.linears.1.bias" for i in range(6)
    }


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("aoanet_vocab_9487", {}),
        ("aoanet_without_refining_9487", {"layers": 0}),
        ("aoanet_refiner_with_ff_9487", {"feed_forward": 2048}),
        ("aoanet_rnn512_9487", {"width": 512}),
    ],
)
def test_parameters_are_those_of_the_paper_without_biases_of_keys(golden, table, options):
    config = AoANetConfig(9488, 2048, 2048, **{"width": 1024, "layers": 6, **options})
    with torch.device("meta"):
        parameters = list(AoANet(config).parameters())
    wanted = json.loads((golden / "aoanet/parameters.json").read_text())[table]
    key_biases = (config.layers + 1) * config.width
    assert sum(p.numel() for p in parameters if p.ndim == 1) == wanted["vectors"] - key_biases
    assert sum(p.numel() for p in parameters) == wanted["total"] - key_biases


def test_published_refiner_and_mean(published):
    layers = []
    for layer in (published.model.refiner[0], published.model.refiner[-1], published.model.refiner_norm):
        layer.register_forward_hook(lambda _, __, output: layers.append(output))
    memory = published.model.initial_state(published.features).memory
    for found, name in zip(layers, ("refiner_layer0", "refiner_layer5", "refined"), strict=True):
        torch.testing.assert_close(found, published.held[name][published.features.valid], rtol=0, atol=2e-5)
    torch.testing.assert_close(memory.mean, published.held["mean_feats"], rtol=0, atol=2e-5)
    values = memory.regions.values.transpose(1, 2).flatten(2)[published.features.valid]
    wanted = published.held["p_att_feats"][..., :16][published.features.valid]
    torch.testing.assert_close(values, wanted, rtol=0, atol=2e-5)


def test_published_states_of_every_step(published):
    state, tokens = published.model.initial_state(published.features), published.tokens[:, 0]
    for t in range(9):
        going = tokens[:, t + 1] != 0
        _, state = published.model.next_logits(state, tokens[:, t])
        for found, name in zip(state.recurrent, ("step_h_att", "step_c_att", "step_context"), strict=True):
            torch.testing.assert_close(found[going], published.held[name][going, t], rtol=0, atol=2e-5)


def test_published_log_probabilities(published):
    torch.testing.assert_close(published.log_probs(), published.theirs("logprobs"), rtol=0, atol=5e-5)
    rows = torch.tensor([0, 2])
    features = Features(published.features.grid[rows], torch.zeros(2, 1))
    mean = published.model.initial_state(features).memory.mean
    torch.testing.assert_close(mean, published.held["nomask_mean_feats"], rtol=0, atol=2e-5)
    wanted = published.held["nomask_logprobs"][published.held["label_masks"][rows, 1:] > 0]
    torch.testing.assert_close(published.log_probs(features, published.tokens[rows]), wanted, rtol=0, atol=5e-5)


def smoothed(log_probs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Kullback-Leibler divergence from targets that spread `smoothing` over all other words."""
    wanted = torch.full_like(log_probs, smoothing / (log_probs.shape[1] - 1))
    wanted.scatter_(1, targets[:, None], 1 - smoothing)
    return F.kl_div(log_probs, wanted, reduction="sum") / len(targets)


def norms(model: AoANet) -> dict[str, float]:
    """Norms of gradients by published name."""
    squares: dict[str, float] = defaultdict(float)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        squares[published_name(name)] += float(parameter.grad.double().square().sum())
    return {name: math.sqrt(square) for name, square in squares.items()}


@pytest.mark.parametrize(("name", "smoothing"), [("xe", 0.0), ("label_smoothing_0.2", 0.2)])
def test_published_losses_and_gradients(published, name, smoothing):
    loss = smoothed(published.log_probs(), published.targets(), smoothing)
    loss.backward()
    assert loss.item() == pytest.approx(published.values[name]["loss"], rel=1e-5)
    found, wanted = norms(published.model), published.values[name]["grad_norms"]
    assert found == pytest.approx({name: wanted[name] for name in found}, rel=1e-4)
    assert all(wanted[name] < 1e-6 for name in wanted.keys() - found.keys())


def test_published_self_critical_loss(published):
    values = published.values["scst_loss"]
    ids, log_probs = torch.tensor(values["sample_ids"]), torch.tensor(values["sample_logprobs"])
    spoken = F.pad(ids[:, :-1] > 0, (1, 0), value=True)  # words and the end behind them
    advantages = torch.tensor(values["advantage"])[:, None].expand_as(log_probs)
    found = self_critical_loss(log_probs[spoken], advantages[spoken])
    assert found.item() == pytest.approx(values["loss"], rel=1e-5)


def test_published_training(published):
    model, wanted = published.model, published.values["train_trajectory"]
    optimizer = torch.optim.Adam(model.parameters(), lr=wanted["lr"])
    losses = []
    for _ in wanted["losses"]:
        loss = smoothed(published.log_probs(), published.targets(), wanted["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), wanted["clip_value"])
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(wanted["losses"], rel=1e-5)
    sums: dict[str, float] = defaultdict(float)
    words = published.words
    for name, parameter in model.named_parameters():
        rows = words.read if name == "embedding.weight" else words.said if name.startswith("output.") else slice(None)
        sums[published_name(name)] += float(parameter.detach()[rows].abs().sum())
    del sums["ctx2att.bias"]  # theirs holds biases of keys
    assert sums == pytest.approx({name: wanted["final_abs_sum"][name] for name in sums}, rel=1e-5)


def ended(ids: list[int], words: Words) -> tuple[int, ...]:
    return tuple(words.said[i] for i in ids if i)


def test_published_search(published):
    published_search, words = published.values["decode"], published.words
    found = decode(published.model, published.features, Decoding(1, 8, allow_unknown=True), SPECIAL)
    wanted = published_search["greedy"]
    assert [image[0].tokens for image in found] == [ended(ids, words) for ids in wanted["ids"]]
    assert any(UNK in image[0].tokens for image in found)
    for image, log_probs in zip(found, wanted["logprobs"], strict=True):
        np.testing.assert_allclose(image[0].log_probs, log_probs[: len(image[0].log_probs)], atol=5e-5)
    for beam in (2, 3, 5):
        found = decode(published.model, published.features, Decoding(beam, 8), SPECIAL)
        for ours, theirs in zip(found, published_search[f"beam{beam}"]["hypotheses"], strict=True):
            assert [h.tokens for h in ours] == [ended(h["ids"], words) for h in theirs]
            np.testing.assert_allclose([h.score for h in ours], [h["sum"] for h in theirs], atol=5e-5)


@pytest.mark.parametrize(("variant", "options"), [("no_refiner", {"layers": 0}), ("refiner_with_ff", {})])
def test_published_variants(golden, variant, options):
    values, held = (
        json.loads((golden / "aoanet/variants.json").read_text())[variant],
        arrays(golden / "aoanet/variants.npz"),
    )
    flat, weights = held[f"{variant}__flat"], {}
    for name, shape in values["tensors"]:
        weights[name], flat = flat[: math.prod(shape)].view(shape), flat[math.prod(shape) :]
    config = AoANetConfig(15, 10, 1, **{"width": 8, "heads": 2, "layers": 6, **options})
    model = load(replace(config, feed_forward=12 if variant == "refiner_with_ff" else 0), weights)
    features = Features(held["att_feats"], torch.zeros(4, 1), valid=held["att_masks"] > 0)
    words = Words.of(13)
    mean = model.initial_state(features).memory.mean
    torch.testing.assert_close(mean, held[f"{variant}__mean_feats"], rtol=0, atol=2e-5)
    log_probs = model(features, words.tokens(held["labels"])).log_softmax(-1)[:, words.said]
    said = held["label_masks"][:, 1:] > 0
    torch.testing.assert_close(log_probs, held[f"{variant}__logprobs"][said], rtol=0, atol=5e-5)
    loss = F.nll_loss(log_probs, held["labels"][:, 1:][said])
    loss.backward()
    assert loss.item() == pytest.approx(values["xe_loss"], rel=1e-5)
    assert math.hypot(*norms(model).values()) == pytest.approx(values["grad_norm_total"], rel=1e-4)
    found = decode(model, features, Decoding(1, 6, allow_unknown=True), SPECIAL)
    assert [image[0].tokens for image in found] == [ended(ids, words) for ids in values["greedy_ids"]]


# Our own


def make(**changes: Any) -> AoANet:
    """A small captioner in float64, every parameter drawn, biases too."""
    torch.manual_seed(0)
    model = AoANet(replace(SMALL, **changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.6)
    return model


def make_features(padded: bool = True) -> Features:
    """Three images of 9, 4 and 1 regions, or of 9 each."""
    torch.manual_seed(1)
    valid = torch.arange(9) < torch.tensor([[9], [4], [1]]) if padded else None
    return Features(torch.randn(3, 9, 6, dtype=torch.float64, requires_grad=True), torch.zeros(3, 5), valid=valid)


CAPTIONS = [
    [[2, 5, 6, 7, 3], [2, 8, 3], [2, 9, 9, 9, 9, 9, 3]],
    [[2, 3], [2, 10, 11, 12, 13, 3], []],
    [[2, 14, 15, 3], [2, 16, 1, 3], [2, 4, 3]],
]


def make_tokens() -> Tensor:
    """Three images of three captions, of many lengths; one caption is padding only."""
    tokens = torch.zeros(3, 3, 8, dtype=torch.int64)  # one column more than needed
    for i, some in enumerate(CAPTIONS):
        for j, ids in enumerate(some):
            tokens[i, j, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return tokens


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Queries (n, width) over (positions, width): one head after the other."""
    size = queries.shape[-1] // heads
    found = []
    for h in range(heads):
        q, k, v = (x[:, h * size : (h + 1) * size] for x in (queries, keys, values))
        found.append(torch.softmax(q @ k.T / math.sqrt(size), -1) @ v)
    return torch.cat(found, -1)


def plain_gate(found: nn.Linear, own: nn.Linear, answer: Tensor, asked: Tensor) -> Tensor:
    information, gate = (found(answer) + own(asked)).chunk(2, -1)
    return information * torch.sigmoid(gate)


def plain_logits(model: AoANet, grid: Tensor, words: list[int]) -> list[Tensor]:
    """One caption of one image without padding, one word at a time: logits after each of `words`."""
    heads, x = model.config.heads, F.relu(model.region(grid))
    for layer in model.refiner:
        y, a = layer.attention_norm(x), layer.attention
        x = x + plain_gate(a.output, a.own, plain_attention(a.query(y), a.key(y), a.value(y), heads), y)
        if layer.feed_forward:
            x = x + layer.feed_forward(layer.feed_forward_norm(x))
    x = model.refiner_norm(x)
    hidden = cell = context = torch.zeros(1, model.config.width, dtype=torch.float64)
    logits = []
    for word in words:
        given = torch.cat([F.relu(model.embedding.weight[word]), x.mean(0) + context[0]])
        hidden, cell = model.lstm(given[None], (hidden, cell))
        asked = model.query(model.query_norm(hidden))
        context = plain_gate(
            model.found, model.own, plain_attention(asked, model.key(x), model.value(x), heads), hidden
        )
        logits.append(model.output(context[0]))
    return logits


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("feed_forward", [0, 7])
def test_forward_equals_a_plain_loop_with_all_gradients(padded, feed_forward):
    model, features, tokens = make(feed_forward=feed_forward), make_features(padded), make_tokens()
    counts = features.valid.sum(1).tolist() if padded else [9] * 3
    expected = torch.stack(
        [
            row
            for image, captions in enumerate(CAPTIONS)
            for ids in captions
            for row in plain_logits(model, features.grid[image, : counts[image]], ids[:-1])
        ]
    )
    found = model(features, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    torch.manual_seed(2)
    weights = torch.randn_like(expected)
    inputs = [*model.parameters(), features.grid]
    grads = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert all(bool(grad.abs().max() > 1e-6) for grad in grads[1])  # no parameter is idle


def test_search_steps_equal_the_whole_forward():
    """Rows repeated, reordered, dropped, several to an image, one image left out."""
    model, features = make().eval(), make_features()
    state, image = model.start(features), np.arange(3)
    written: list[list[int]] = [[] for _ in image]
    rng = np.random.default_rng(0)
    for rows in (None, [2, 0, 0, 2, 2], [1, 1, 0, 4, 3], [4, 2, 3], [1, 1]):
        if rows is not None:
            state, image = model.select(state, np.array(rows)), image[rows]
            written = [list(written[row]) for row in rows]
        tokens = rng.integers(4, 17, len(image))
        values, ids, state = model.step(state, tokens, k=1000)
        for words, token in zip(written, tokens, strict=True):
            words.append(int(token))
        for row, words in enumerate(written):
            only = features[slice(image[row], image[row] + 1)]
            expected = model(only, torch.tensor([[[*words, EOS]]]))[-1].log_softmax(-1).detach().numpy()
            np.testing.assert_allclose(values[row], expected[ids[row]], atol=1e-5)


def test_an_image_without_regions_harms_no_other():
    model, features, tokens = make(), make_features(), make_tokens()
    valid = features.valid.clone()
    valid[1] = False
    found, expected = model(replace(features, valid=valid), tokens), model(features, tokens)
    others = torch.tensor([True] * 12 + [False] * 6 + [True] * 8)
    assert found.isfinite().all()
    torch.testing.assert_close(found[others], expected[others], rtol=1e-9, atol=1e-9)


def test_every_matrix_is_read_once_a_call():
    reads: Counter[str] = Counter()

    class Counting(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, weight: Tensor) -> Tensor:
            reads[self.name] += 1
            return weight

    model = make()
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    for name in matrices:
        module, _, attribute = name.rpartition(".")
        parametrize.register_parametrization(model.get_submodule(module), attribute, Counting(name), unsafe=True)
    reads.clear()
    model(make_features(), make_tokens())
    assert reads == dict.fromkeys(matrices, 1)


def test_dropouts_reach_training_only():
    features, tokens = make_features(), make_tokens()
    expected = make()(features, tokens)
    for option in ("dropout", "attention_dropout", "gate_dropout", "refiner_dropout"):
        model = make(**{option: 0.5}).train()
        assert not torch.allclose(model(features, tokens), expected), option
        torch.testing.assert_close(model.eval()(features, tokens), expected)


def test_initial_weights_are_those_of_the_published_layers():
    """A layer that is two here draws as the one that it is there."""
    torch.manual_seed(0)
    model = AoANet(AoANetConfig(500, 100, 100, width=64, heads=4, layers=1, feed_forward=32))
    bounds = {"refiner.0.attention.output": 128, "refiner.0.attention.own": 128, "found": 128, "own": 128}
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        if isinstance(model.get_submodule(owner), nn.Linear) and parameter.ndim > 1:
            bound = bounds.get(owner, parameter.shape[1]) ** -0.5
            assert parameter.abs().max().item() == pytest.approx(bound, rel=0.02), name
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1), name
    assert model.embedding.weight.std().item() == pytest.approx(1, rel=0.05)
    assert model.found.bias.abs().max().item() == pytest.approx(128**-0.5, rel=0.1)


def test_bfloat16_stays_close_to_float32():
    torch.manual_seed(0)
    model = AoANet(replace(SMALL, vocabulary=200, grid_channels=32, width=64, heads=4))
    features, tokens = Features(torch.randn(4, 9, 32), torch.randn(4, 5)), torch.randint(4, 200, (4, 5, 12))
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
        assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.95, name


def test_units_of_the_refiner_can_go():
    groups = {group.name: group.size for group in find_groups(make(feed_forward=7))}
    assert groups == {
        f"refiner.{i}.{name}": size for i in (0, 1) for name, size in (("attention", 4), ("feed_forward", 7))
    }


@pytest.mark.parametrize(
    ("option", "value"),
    [("layers", -1), ("layers", 10**9), ("width", 16), ("heads", 0), ("feed_forward", -1), ("gate_dropout", 1.0)],
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(ConfigError, match=f"aoanet: {option} = {value}"):
        replace(SMALL, **{option: value})
