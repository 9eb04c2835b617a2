"""How the Object Relation Transformer becomes programs."""

from laconic.runtime.program import Builder
from laconic.spec.packed import CaptionerSpec
from laconic.store import Packed


def plan_object_relation(builder: Builder, packed: Packed, spec: CaptionerSpec, grid: int, pooled: int) -> dict[str, int]:
    raise NotImplementedError
