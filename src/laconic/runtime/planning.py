"""A packed captioner becomes a plan: the rules of its encoder and of its captioner, one after the other.

plan = make_plan(laconic.store.load("tiny.safetensors"))
"""

from collections.abc import Callable, Iterable

from laconic.errors import ConfigError
from laconic.runtime.operations import NONE, Place
from laconic.runtime.plan import Plan
from laconic.runtime.program import Builder
from laconic.runtime.rules_aoanet import plan_aoanet
from laconic.runtime.rules_encoders import RULES, plan_encoder
from laconic.runtime.rules_recurrent import plan_soft_attention, plan_up_down
from laconic.runtime.rules_transformer import plan_object_relation
from laconic.runtime.values import Width
from laconic.spec.encoders import MOST_REGIONS, cells_of, channels_of
from laconic.spec.model import REGIONS
from laconic.spec.packed import CaptionerSpec, read_spec
from laconic.spec.tokens import SPECIAL
from laconic.store import Packed

TOKENIZATIONS = ("words", "sentencepiece")

# Each adds programs that read `grid` (and `pooled`, and boxes) and returns the buffers of the header that it reads
# beside the grid: {"logits": .., "boxes": ..}.
CAPTIONERS: dict[str, Callable[..., dict[str, int]]] = {
    "soft_attention": plan_soft_attention,
    "up_down": plan_up_down,
    "object_relation": plan_object_relation,
    "aoanet": plan_aoanet,
}


def make_plan(packed: Packed, *, width: Width = "exact", spec: CaptionerSpec | None = None) -> Plan:
    """The plan of a packed captioner.

    width: "exact" keeps every value: as a code of one byte where the file has steps and that is enough, else as
        float32. "bfloat16" rounds what "exact" keeps as float32 to 8 significant bits.

    Raises FormatError, naming the file, where it holds something else or is damaged; ConfigError where there are no
    rules for its encoder or its captioner.
    """
    spec = spec or read_spec(packed)
    _check_rules(spec)
    encoder, builder = spec.model.encoder, Builder(width)
    channels = channels_of(encoder)
    pixels = encoder.name != REGIONS
    grid = builder.buffer(channels.grid, "POSITIONS")
    pooled = builder.buffer(channels.pooled, "IMAGES") if spec.captioner.reads_pooled else NONE
    if pixels:
        plan_encoder(builder, packed, encoder, Place(grid), pooled)
    found = CAPTIONERS[spec.model.decoder.name](builder, packed, spec, grid, pooled)
    special = {"pad": SPECIAL.pad, "unk": SPECIAL.unk, "bos": SPECIAL.bos, "eos": SPECIAL.eos}
    facts = {
        "grid": grid, "pooled": pooled, "channels": channels.grid, "pooled_channels": channels.pooled,
        "side": encoder.size if pixels else 0, "positions": cells_of(encoder) if pixels else MOST_REGIONS,
        "scale": spec.normalization.scale, "shift": spec.normalization.shift,
        "vocabulary": spec.vocabulary.size, "words": len(spec.vocabulary) if spec.vocabulary.base else 0,
        "tokenization": TOKENIZATIONS.index(spec.vocabulary.tokenization),
    }  # fmt: skip
    return builder.finish({**facts, **special, **found}, list(spec.vocabulary.words))


def _check_rules(spec: CaptionerSpec) -> None:
    """ConfigError where encoder or captioner has no rules to make programs by."""
    tables: dict[str, tuple[str, Iterable[str]]] = {
        "encoder": (spec.model.encoder.name, [*RULES, REGIONS]),
        "captioner": (spec.model.decoder.name, CAPTIONERS),
    }
    for kind, (name, known) in tables.items():
        if name not in known:
            raise ConfigError(
                f"{kind} {name!r} has no rules in the engine; run it with backend torch, or write them (docs/EXTEND.md)"
            )
