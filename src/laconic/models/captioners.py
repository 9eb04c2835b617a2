"""The table of captioners, and building one from a configuration.

A captioner is an nn.Module over an encoder's Features: `forward(features, tokens)` for teacher forcing, and the
Captioner protocol of laconic.decode.search for search. Its config dataclass has `vocabulary`, `grid_channels` and
`pooled_channels`, which follow from vocabulary and encoder; the rest is up to the user. One that cannot do without the
boxes of regions has `reads_boxes = True`, one that leaves the pooled feature alone `reads_pooled = False`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from torch import nn

from laconic.config import from_mapping
from laconic.errors import ConfigError
from laconic.models.object_relation import ObjectRelation, ObjectRelationConfig
from laconic.models.soft_attention import SoftAttention, SoftAttentionConfig
from laconic.models.up_down import UpDown, UpDownConfig

CAPTIONERS: dict[str, tuple[type, type[nn.Module]]] = {
    "soft_attention": (SoftAttentionConfig, SoftAttention),
    "up_down": (UpDownConfig, UpDown),
    "object_relation": (ObjectRelationConfig, ObjectRelation),
}


def build_captioner(name: str, options: Mapping[str, Any], vocabulary: int, encoder: nn.Module) -> nn.Module:
    """A captioner by name for a vocabulary size and an encoder; ConfigError for unknown names and options."""
    config, module = _row(name)
    sizes = {
        "vocabulary": vocabulary,
        "grid_channels": encoder.grid_channels,
        "pooled_channels": encoder.pooled_channels,
    }
    return module(from_mapping({**options, **sizes}, config, f"captioner {name}"))


def default_options(name: str) -> dict[str, Any]:
    """What the captioner's options are where nobody sets them; ConfigError for unknown names."""
    return {f.name: f.default for f in fields(_row(name)[0]) if f.default is not MISSING}


def form(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a captioner the function that it is, weights apart: its kind, and its options but for dropout.

    Raises ConfigError for unknown names.
    """
    every = {**default_options(name), **options}
    return {"name": name, "options": {key: value for key, value in every.items() if not key.endswith("dropout")}}


def _row(name: str) -> tuple[Any, type[nn.Module]]:
    if name not in CAPTIONERS:
        raise ConfigError(f"captioner {name!r} is unknown; choose one of {', '.join(CAPTIONERS)}")
    return CAPTIONERS[name]
