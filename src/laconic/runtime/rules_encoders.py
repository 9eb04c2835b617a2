"""How each encoder becomes the program `encode`."""

from laconic.runtime.operations import Place
from laconic.runtime.program import Builder
from laconic.spec.model import EncoderConfig
from laconic.store import Packed


def plan_encoder(builder: Builder, packed: Packed, config: EncoderConfig, grid: Place, pooled: int) -> None:
    """Adds the program that fills `grid`, and `pooled` unless it is NONE, from the pixels of an image."""
    raise NotImplementedError
