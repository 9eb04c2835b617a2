"""The table of captioners, and building one from its configuration.

What a captioner must offer is said in laconic.models.torch_captioner; its config dataclass and the facts about it are a
row of laconic.spec.captioners.
"""

from collections.abc import Callable
from typing import Any

from laconic.models.aoanet import AoANet
from laconic.models.object_relation import ObjectRelation
from laconic.models.soft_attention import SoftAttention
from laconic.models.torch_captioner import TorchCaptioner
from laconic.models.up_down import UpDown
from laconic.spec.captioners import CaptionerConfig

CAPTIONERS: dict[str, Callable[[Any], TorchCaptioner[Any]]] = {
    "soft_attention": SoftAttention,
    "up_down": UpDown,
    "object_relation": ObjectRelation,
    "aoanet": AoANet,
}


def build_captioner(name: str, config: CaptionerConfig) -> TorchCaptioner[Any]:
    """The captioner of that name with initial weights; `config` is that of `spec.captioners.captioner_config`."""
    return CAPTIONERS[name](config)
