"""Smaller captioners that begin with the weights of larger ones: what each rule keeps, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.inheriting import factorised, inherit
from laconic.errors import ConfigError
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

WORDS = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(40))))
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8))
TOKENS = torch.tensor([[[2, 5, 9, 7, 3]], [[2, 11, 3, 0, 0]], [[2, 40, 43, 3, 0]]])
SIZES: dict[str, dict[str, Any]] = {
    "soft_attention": {"word": 12, "hidden": 16},
    "up_down": {"word": 12, "hidden": 16, "attention": 8},
    "object_relation": {"layers": 4, "width": 16, "feed_forward": 24, "heads": 2},
    "aoanet": {"layers": 1, "width": 16, "heads": 2},
}


def make(
    name: str, vocabulary: Vocabulary = WORDS, encoder: str = "toy", seed: int = 0, **options: Any
) -> ImageCaptioner:
    torch.manual_seed(seed)
    config = ModelConfig(EncoderConfig(encoder, 64, 16), DecoderConfig(name, {**SIZES[name], **options}))
    captioner = ImageCaptioner(config, vocabulary).eval()
    with torch.no_grad():
        for parameter in captioner.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.3)
    return captioner


def logits(captioner: ImageCaptioner) -> torch.Tensor:
    with torch.no_grad():
        return captioner(PIXELS, TOKENS)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_alike_is_taken_as_it_is(name: str) -> None:
    larger = make(name)
    smaller = make(name, seed=1)
    inherit(smaller, larger)
    torch.testing.assert_close(logits(smaller), logits(larger), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_tables_of_the_same_form_keep_their_zeros(tied: bool) -> None:
    larger, smaller = (make("soft_attention", seed=seed, rank=6, tied=tied) for seed in (0, 1))
    with torch.no_grad():
        larger.decoder.embedding.weight[:, ::2] = 0
        larger.decoder.reduce.weight[::3] = 0
    inherit(smaller, larger)
    for name, weight in larger.decoder.named_parameters():
        assert torch.equal(smaller.decoder.get_parameter(name), weight), name


@pytest.mark.parametrize("name", SIZES)
def test_a_rank_that_is_enough_changes_nothing(name: str) -> None:
    larger = make(name)
    for options in ({"rank": 16}, {"rank": 32, "tied": True}):
        smaller = make(name, seed=1, **options)
        inherit(smaller, larger)
        torch.testing.assert_close(logits(smaller), logits(larger), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_a_lower_rank_is_nearer_than_a_fresh_start(name: str) -> None:
    larger = make(name)
    smaller = make(name, seed=1, rank=6)
    fresh = (logits(smaller) - logits(larger)).square().mean()
    inherit(smaller, larger)
    assert (logits(smaller) - logits(larger)).square().mean() < 0.6 * fresh


def test_tied_tables_are_the_outputs() -> None:
    larger = make("aoanet")
    smaller = make("aoanet", seed=1, tied=True)
    inherit(smaller, larger)
    assert torch.equal(smaller.decoder.embedding.weight, larger.decoder.output.weight)
    assert smaller.decoder.output.weight is smaller.decoder.embedding.weight


def test_a_tied_table_behind_a_layer_gives_the_best_scores_and_turns_towards_the_words() -> None:
    larger = make("soft_attention")
    smaller = make("soft_attention", seed=1, tied=True)
    inherit(smaller, larger)
    found = smaller.decoder.output.weight @ smaller.decoder.reduce.weight
    left, right = factorised(larger.decoder.output.weight.double(), 12)
    torch.testing.assert_close(found.double(), left @ right, rtol=0, atol=1e-4)
    apart = (smaller.decoder.embedding.weight - larger.decoder.embedding.weight).square().sum()
    assert apart < larger.decoder.embedding.weight.square().sum()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_dead_units_are_left_out_and_nothing_changes_soft_attention(cell: str) -> None:
    larger = make("soft_attention", cell=cell)
    kill(larger, {"hidden": [1, 5, 6], "attention": [0, 2, 9], "context": [3, 4, 15], "word": [2, 11]})
    smaller = make("soft_attention", seed=1, cell=cell, hidden=13, word=10)
    inherit(smaller, larger)
    torch.testing.assert_close(logits(smaller), logits(larger), rtol=0, atol=1e-5)


def test_dead_units_are_left_out_and_nothing_changes_up_down() -> None:
    larger = make("up_down")
    dead = [2, 3, 7, 8]
    kill(larger, {**dict.fromkeys(("first", "language", "region", "pooled"), dead), "attention": [0, 7], "word": [5]})
    smaller = make("up_down", seed=1, hidden=12, attention=6, word=11)
    inherit(smaller, larger)
    torch.testing.assert_close(logits(smaller), logits(larger), rtol=0, atol=1e-5)


def kill(captioner: ImageCaptioner, dead: dict[str, list[int]]) -> None:
    """Zeroes what reads those units; of a word's vector the columns of its table, which is all that reads them."""
    config, tables = captioner.decoder.config, captioner.decoder.units
    sizes = dict.fromkeys(("hidden", "context", "first", "language", "region", "pooled"), config.hidden)
    sizes |= {"word": config.word, "attention": getattr(config, "attention", config.hidden)}
    with torch.no_grad():
        for name, dimensions in tables.items():
            for at, dimension in enumerate(dimensions):
                start = 0
                for kind in dimension.split():
                    if kind in dead and (at == 1 or name == "embedding.weight"):
                        places = [start + unit for unit in dead[kind]]
                        captioner.decoder.get_parameter(name)[:, places] = 0
                    start += sizes[kind]


def test_shared_layers_are_means_and_equal_ones_stay() -> None:
    larger = make("object_relation")
    smaller = make("object_relation", seed=1, share_layers=[0, 0, 1, 1])
    inherit(smaller, larger)
    mean = (larger.decoder.encoder[2].attention.query.weight + larger.decoder.encoder[3].attention.query.weight) / 2
    torch.testing.assert_close(smaller.decoder.encoder[1].attention.query.weight, mean)
    for part in (larger.decoder.encoder, larger.decoder.decoder, larger.decoder.relation):
        for at in (1, 3):
            part[at].load_state_dict(part[at - 1].state_dict())
    inherit(smaller, larger)
    torch.testing.assert_close(logits(smaller), logits(larger), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("sharing", "pair"), [("kv", ("key", "value")), ("qk", ("query", "key"))])
def test_shared_projections_are_means_and_equal_ones_stay(sharing: str, pair: tuple[str, str]) -> None:
    larger = make("object_relation")
    for module in larger.modules():
        if all(hasattr(module, name) for name in ("query", "key", "value")):
            first, second = (getattr(module, name) for name in pair)
            second.load_state_dict(first.state_dict())
    smaller = make("object_relation", seed=1, share_attention=sharing)
    inherit(smaller, larger)
    torch.testing.assert_close(logits(smaller), logits(larger), rtol=0, atol=1e-5)


def test_digits_begin_afresh_and_all_else_is_taken() -> None:
    larger = make("soft_attention")
    smaller = make("soft_attention", Vocabulary(WORDS.words, base=16), seed=1)
    fresh = smaller.decoder.embedding.weight.clone()
    inherit(smaller, larger)
    assert torch.equal(smaller.decoder.embedding.weight, fresh)
    assert torch.equal(smaller.decoder.gates.weight, larger.decoder.gates.weight)


@pytest.mark.parametrize(
    ("smaller", "message"),
    [
        (lambda: make("up_down"), "cannot begin with the weights of a soft_attention"),
        (lambda: make("soft_attention", encoder="mobilenet_v1"), "has encoder"),
        (lambda: make("soft_attention", Vocabulary(WORDS.words[:-1])), "other words"),
        (lambda: make("soft_attention", hidden=17), "17 .* units"),
        (lambda: make("soft_attention", cell="gru"), "inherit: "),
    ],
)
def test_what_cannot_be_inherited(smaller, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inherit(smaller(), make("soft_attention"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("object_relation", {"width": 12}),
        ("object_relation", {"layers": 3}),
        ("aoanet", {"width": 12}),
        ("aoanet", {"layers": 0}),
    ],
)
def test_other_changes_are_refused_and_nothing_is_taken(name: str, options: dict[str, Any]) -> None:
    smaller = make(name, seed=1, **options)
    before = logits(smaller)
    with pytest.raises(ConfigError, match="inherit: "):
        inherit(smaller, make(name))
    assert torch.equal(logits(smaller), before)
