"""The options of every captioner, their table, and what each captioner reads. Knows no modules.

A captioner's config dataclass has `vocabulary`, `grid_channels` and `pooled_channels`, which follow from vocabulary
and encoder; the rest is up to the user. Three facts that others decide by are stated on the class, see CaptionerConfig.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, Protocol

from laconic.config import from_mapping
from laconic.errors import ConfigError
from laconic.spec.encoders import cells_of, channels_of
from laconic.spec.model import REGIONS, ModelConfig

MOST_LAYERS = 100  # layers are Python objects: a damaged file must not ask for a billion

Sharing = Literal["none", "kv", "qk"]
PROJECTIONS: dict[Sharing, tuple[str, str, str]] = {
    "none": ("query", "key", "value"),
    "kv": ("query", "key_value", "key_value"),
    "qk": ("query_key", "query_key", "value"),
}
"""Names of the layers of an attention that make queries, keys and values, by what is shared."""


class CaptionerConfig(Protocol):
    """What the configuration of any captioner says of it.

    Attributes:
        reads_boxes: it has to be told where the regions of a detector lie.
        reads_pooled: it reads the pooled feature, not the grid alone.
        most_positions: regions or cells of an image, where memory grows with their square; None: as many as there are.
    """

    reads_boxes: ClassVar[bool]
    reads_pooled: ClassVar[bool]
    most_positions: ClassVar[int | None]

    @property
    def vocabulary(self) -> int: ...

    @property
    def grid_channels(self) -> int: ...

    @property
    def pooled_channels(self) -> int: ...


class WordTables(Protocol):
    """What the configuration of a captioner says of its tables of words; laconic.models.words has a picture."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def tied(self) -> bool: ...

    @property
    def rank(self) -> int: ...


SIZES = ("vocabulary", "grid_channels", "pooled_channels")


@dataclass(frozen=True)
class SoftAttentionConfig:
    """Sizes and regularisation; the defaults are the paper's dense model.

    Attributes:
        vocabulary: number of words, specials included.
        grid_channels, pooled_channels: of the encoder's Features.
        word: size of the word embedding.
        hidden: size of the recurrent state and of the attention.
        cell: kind of recurrent cell.
        dropout: of the cell's input and output; the paper has 0.35 for dense captioners, 0.11 for sparse ones.
        attention_dropout: of the attention map; the paper has 0.1 for dense captioners, 0.03 for sparse ones.
        tied: the output reads the table of word vectors; laconic.models.words has a picture.
        rank: columns of that table, factorised; 0: as many as a word vector has.
    """

    reads_boxes: ClassVar[bool] = False
    reads_pooled: ClassVar[bool] = True
    most_positions: ClassVar[int | None] = None

    vocabulary: int
    grid_channels: int
    pooled_channels: int
    word: int = 256
    hidden: int = 512
    cell: Literal["lstm", "gru"] = "lstm"
    dropout: float = 0.35
    attention_dropout: float = 0.1
    tied: bool = False
    rank: int = 0

    def __post_init__(self) -> None:
        _check_sizes("soft_attention", self, *SIZES, "word", "hidden")
        _check_dropouts("soft_attention", self, "dropout", "attention_dropout")
        _check_sizes("soft_attention", self, "rank", least=0)


@dataclass(frozen=True)
class UpDownConfig:
    """Sizes and regularisation; the defaults are the paper's dense model.

    Attributes:
        vocabulary: number of words, specials included.
        grid_channels, pooled_channels: of the encoder's Features.
        word: size of the word embedding.
        hidden: size of both LSTMs and of the embedded regions.
        attention: size of the attention.
        dropout: of embedded words, embedded regions and the output; the paper has 0.5 for dense captioners, 0.1 for
            sparse ones.
        tied: the output reads the table of word vectors; laconic.models.words has a picture.
        rank: columns of that table, factorised; 0: as many as a word vector has.
    """

    reads_boxes: ClassVar[bool] = False
    reads_pooled: ClassVar[bool] = True
    most_positions: ClassVar[int | None] = None

    vocabulary: int
    grid_channels: int
    pooled_channels: int
    word: int = 1000
    hidden: int = 1000
    attention: int = 512
    dropout: float = 0.5
    tied: bool = False
    rank: int = 0

    def __post_init__(self) -> None:
        _check_sizes("up_down", self, *SIZES, "word", "hidden", "attention")
        _check_dropouts("up_down", self, "dropout")
        _check_sizes("up_down", self, "rank", least=0)


@dataclass(frozen=True)
class ObjectRelationConfig:
    """Sizes and regularisation; the defaults are the paper's dense model.

    Attributes:
        vocabulary: number of words, specials included.
        grid_channels, pooled_channels: of the encoder's Features; the pooled ones are not used.
        layers: layers of the transformer's encoder, and as many of its decoder.
        width: numbers per word and per region, in every layer; a multiple of twice the heads.
        feed_forward: width of the feed-forward part of every layer.
        heads: attention heads of every layer.
        input_dropout: of the embedded regions; the paper has 0.5 for dense captioners, 0.1 for sparse ones.
        dropout: everywhere else, attention maps included; the paper has 0.1 for dense captioners, 0.1 / 3 for sparse
            ones.
        plus_one: sides of relative boxes grow by 1 before they are compared, as published; see
            laconic.models.box_geometry.
        tied: the output reads the table of word vectors; laconic.models.words has a picture.
        rank: columns of that table, factorised; 0: as many as a word vector has.
        share_attention: which layers of every attention are one and the same: "kv" those of keys and values, "qk" those
            of queries and keys.
        share_layers: which layer stands at each place, counted in the order of first use; the transformer's encoder and
            its decoder alike. [0, 0, 0, 1, 1, 1]: two layers, each three times in a row; []: layers share nothing.
    """

    reads_boxes: ClassVar[bool] = True
    reads_pooled: ClassVar[bool] = False
    most_positions: ClassVar[int | None] = 1024  # 0.7 GB for the relations of one image

    vocabulary: int
    grid_channels: int
    pooled_channels: int
    layers: int = 6
    width: int = 512
    feed_forward: int = 2048
    heads: int = 8
    input_dropout: float = 0.5
    dropout: float = 0.1
    plus_one: bool = True
    tied: bool = False
    rank: int = 0
    share_attention: Sharing = "none"
    share_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_sizes("object_relation", self, *SIZES, "layers", "width", "feed_forward", "heads")
        _check_layers("object_relation", self.layers)
        _check_sharing("object_relation", self.layers, self.share_layers)
        _check_width("object_relation", self.width, self.heads, 2 * self.heads)
        _check_dropouts("object_relation", self, "input_dropout", "dropout")
        _check_sizes("object_relation", self, "rank", least=0)

    @property
    def order(self) -> tuple[int, ...]:
        """Number of the layer that stands at each place."""
        return self.share_layers or tuple(range(self.layers))

    @property
    def unique_layers(self) -> int:
        """How many layers there are, each counted once; `layers` is how many an input passes."""
        return max(self.order) + 1


@dataclass(frozen=True)
class AoANetConfig:
    """Sizes and regularisation. The defaults are for some thousand photos; the paper's dense model has a width of 1024
    and 6 layers, for COCO.

    Attributes:
        vocabulary: number of words, specials included.
        grid_channels, pooled_channels: of the encoder's Features; the pooled ones are not used.
        width: numbers per word, per region and of the recurrent state; a multiple of the heads.
        heads: attention heads, of the refiner's layers and of the decoder.
        layers: of the refiner, in which regions look at each other; 0: regions stay as they are embedded.
        feed_forward: width of a feed-forward part of every layer of the refiner; 0, as published: there is none.
        dropout: of embedded words, embedded regions, and the context where it is read.
        attention_dropout: of all attention maps.
        gate_dropout: of what attention on attention reads, in the refiner.
        refiner_dropout: of what a layer of the refiner adds, and inside its feed-forward part.
        tied: the output reads the table of word vectors; laconic.models.words has a picture.
        rank: columns of that table, factorised; 0: as many as a word vector has.
    """

    reads_boxes: ClassVar[bool] = False
    reads_pooled: ClassVar[bool] = False
    most_positions: ClassVar[int | None] = 1024  # as many as the engine takes where positions look at each other

    vocabulary: int
    grid_channels: int
    pooled_channels: int
    width: int = 512
    heads: int = 8
    layers: int = 2
    feed_forward: int = 0
    dropout: float = 0.5
    attention_dropout: float = 0.1
    gate_dropout: float = 0.3
    refiner_dropout: float = 0.1
    tied: bool = False
    rank: int = 0

    def __post_init__(self) -> None:
        _check_sizes("aoanet", self, *SIZES, "width", "heads")
        _check_sizes("aoanet", self, "layers", "feed_forward", least=0)
        _check_layers("aoanet", self.layers)
        _check_width("aoanet", self.width, self.heads, self.heads)
        _check_dropouts("aoanet", self, "dropout", "attention_dropout", "gate_dropout", "refiner_dropout")
        _check_sizes("aoanet", self, "rank", least=0)


CAPTIONERS: dict[str, type[CaptionerConfig]] = {
    "soft_attention": SoftAttentionConfig,
    "up_down": UpDownConfig,
    "object_relation": ObjectRelationConfig,
    "aoanet": AoANetConfig,
}


def captioner_config(model: ModelConfig, vocabulary: int) -> CaptionerConfig:
    """The captioner's own configuration, for a vocabulary of that size and the encoder beside it.

    Raises ConfigError for unknown names and options, and where the two do not go together.
    """
    name, encoder = model.decoder.name, model.encoder
    kind, channels = _row(name), channels_of(encoder)
    sizes = dict(zip(SIZES, (vocabulary, *channels), strict=True))
    config = from_mapping({**model.decoder.options, **sizes}, kind, f"captioner {name}")
    if encoder.name != REGIONS and config.most_positions is not None and cells_of(encoder) > config.most_positions:
        raise ConfigError(
            f"captioner {name} relates all cells of the grid, and encoder size {encoder.size} with stride "
            f"{encoder.stride} has {cells_of(encoder):,}; the limit is {config.most_positions:,}: give a smaller size"
        )
    return config


def default_options(name: str) -> dict[str, Any]:
    """What the captioner's options are where nobody sets them; ConfigError for unknown names."""
    kind: Any = _row(name)
    return {f.name: f.default for f in fields(kind) if f.default is not MISSING}


def form(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a captioner the function that it is, weights apart: its kind, and its options but for dropout.

    Raises ConfigError for unknown names.
    """
    every = {**default_options(name), **options}
    kept = {key: value for key, value in every.items() if not key.endswith("dropout")}
    return {"name": name, "options": {key: list(v) if isinstance(v, tuple) else v for key, v in kept.items()}}


def _row(name: str) -> type[CaptionerConfig]:
    if name not in CAPTIONERS:
        raise ConfigError(f"captioner {name!r} is unknown; choose one of {', '.join(CAPTIONERS)}")
    return CAPTIONERS[name]


def _check_sizes(captioner: str, config: Any, *names: str, least: int = 1) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ConfigError(f"{captioner}: {name} = {getattr(config, name)}; give at least {least}")


def _check_layers(captioner: str, layers: int) -> None:
    if layers > MOST_LAYERS:
        raise ConfigError(f"{captioner}: layers = {layers}; give at most {MOST_LAYERS}")


def _check_sharing(captioner: str, layers: int, order: tuple[int, ...]) -> None:
    first_uses = list(dict.fromkeys(order))
    if order and (len(order) != layers or first_uses != list(range(len(first_uses)))):
        raise ConfigError(
            f"{captioner}: share_layers = {list(order)}; give the number of a layer for each of layers = {layers} "
            "places, 0 first and new ones one by one, as in [0, 0, 1]; or [] where layers share nothing"
        )


def _check_width(captioner: str, width: int, heads: int, unit: int) -> None:
    if width % unit:
        raise ConfigError(f"{captioner}: width = {width} with heads = {heads}; give a multiple of {unit}")


def _check_dropouts(captioner: str, config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{captioner}: {name} = {getattr(config, name)}; give 0 <= {name} < 1")
