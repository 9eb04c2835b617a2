"""The table of captioners, and building one from its configuration.

A captioner is an nn.Module over an encoder's Features: `forward(features, tokens)` for teacher forcing, and the
Captioner protocol of laconic.decode.search for search. Its config dataclass is a row of laconic.spec.captioners, and
it keeps it as `config`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from laconic.models.object_relation import ObjectRelation
from laconic.models.soft_attention import SoftAttention
from laconic.models.up_down import UpDown
from laconic.spec.captioners import CaptionerConfig

CAPTIONERS: dict[str, Callable[[Any], nn.Module]] = {
    "soft_attention": SoftAttention,
    "up_down": UpDown,
    "object_relation": ObjectRelation,
}


def build_captioner(name: str, config: CaptionerConfig) -> nn.Module:
    """The captioner of that name with initial weights; `config` is that of `spec.captioners.captioner_config`."""
    return CAPTIONERS[name](config)
