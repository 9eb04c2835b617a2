"""How Soft-Attention and Up-Down become programs."""

from laconic.runtime.program import Builder
from laconic.spec.packed import CaptionerSpec
from laconic.store import Packed


def plan_soft_attention(builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    raise NotImplementedError


def plan_up_down(builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    raise NotImplementedError
