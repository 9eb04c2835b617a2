"""The options of captioners: what follows from elsewhere, what is refused, and that their classes agree with models."""

import pytest

from laconic.errors import ConfigError
from laconic.spec.captioners import CAPTIONERS, captioner_config, default_options, form
from laconic.spec.model import REGIONS, DecoderConfig, EncoderConfig, ModelConfig

VOCABULARY = 30


def model(captioner="soft_attention", options=None, **encoder):
    return ModelConfig(
        EncoderConfig(**{"name": REGIONS, "channels": 3, **encoder}), DecoderConfig(captioner, options or {})
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("softattention", {}, "softattention.*soft_attention"),
        ("soft_attention", {"hiden": 3}, "hiden.*hidden"),
        ("soft_attention", {"hidden": "big"}, "hidden = 'big'"),
        ("soft_attention", {"cell": "rnn"}, "cell = 'rnn'.*'lstm', 'gru'"),
        ("soft_attention", {"hidden": 0}, "hidden = 0"),
        ("up_down", {"dropout": 1.0}, "dropout = 1.0"),
        ("up_down", {"dropout": float("nan")}, "dropout = nan"),
        ("object_relation", {"layers": 101}, "at most 100"),
        ("object_relation", {"width": 9}, "multiple of 16"),
        ("aoanet", {"width": 9}, "width = 9 with heads = 8.*multiple of 8"),
        ("aoanet", {"layers": 101}, "at most 100"),
        ("object_relation", {"share_attention": "all"}, "share_attention = 'all'.*'none', 'kv', 'qk'"),
        ("object_relation", {"share_layers": [0, 0, 1]}, r"share_layers = \[0, 0, 1\].*layers = 6 places"),
        ("object_relation", {"layers": 2, "share_layers": [0, True]}, "share_layers = True"),
        ("object_relation", {"layers": 2, "share_layers": "0, 0"}, "share_layers = '0, 0'; expected a list"),
    ],
)
def test_wrong_names_and_options_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        captioner_config(model(name, options), VOCABULARY)


def test_sizes_follow_vocabulary_and_encoder_whatever_the_options_say():
    options = {"vocabulary": 9**9, "grid_channels": 1, "word": 4, "hidden": 4}
    config = captioner_config(model(options=options), VOCABULARY)
    assert (config.vocabulary, config.grid_channels, config.pooled_channels) == (VOCABULARY, 3, 3)
    config = captioner_config(model("up_down"), VOCABULARY)
    assert (config.grid_channels, config.pooled_channels) == (3, 3)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_every_captioner_states_what_it_reads(name):
    kind = CAPTIONERS[name]
    assert isinstance(kind.reads_boxes, bool)
    assert isinstance(kind.reads_pooled, bool)
    assert kind.most_positions is None or kind.most_positions > 0


def test_the_form_of_a_captioner_is_its_options_without_dropout():
    assert form("soft_attention", {"hidden": 8, "dropout": 0.7}) == form("soft_attention", {"hidden": 8})
    assert form("soft_attention", {}) == form("soft_attention", default_options("soft_attention"))
    assert form("soft_attention", {"hidden": 8}) != form("soft_attention", {})
    listed, given = ({"layers": 2, "share_layers": kind((0, 0))} for kind in (list, tuple))  # a file's, a program's
    assert form("object_relation", listed) == form("object_relation", given)
    with pytest.raises(ConfigError, match="nothing"):
        form("nothing", {})


def test_a_captioner_that_relates_all_regions_has_a_limit_of_cells():
    encoder = {"name": "mobilenet_v2", "size": 1024, "stride": 16}
    captioner_config(model("soft_attention", **encoder), VOCABULARY)
    with pytest.raises(ConfigError, match=r"object_relation.*size 1024.*stride 16.*4,096.*1,024"):
        captioner_config(model("object_relation", **encoder), VOCABULARY)
    captioner_config(model("object_relation", **{**encoder, "size": 512}), VOCABULARY)
    with pytest.raises(ConfigError, match=r"aoanet.*4,096.*1,024"):
        captioner_config(model("aoanet", **encoder), VOCABULARY)
