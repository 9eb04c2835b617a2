"""A recipe: everything that decides the outcome of a run, as one frozen dataclass of plain values.

Recipes are TOML files; every key is also a command-line option. What a recipe means on this machine is resolved by
`recipes.plan`, and carried out by `recipes.run`. Here is no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from laconic.compress.quantized.bits import check_bits
from laconic.data.karpathy import Tokens
from laconic.decode.search import Decoding, check_length
from laconic.errors import ConfigError, PruningError
from laconic.radix import LEAST_BASE, MOST_BASE
from laconic.recipes.methods import METHODS, NONE
from laconic.spec.model import PARTS, REGIONS, DecoderConfig, EncoderConfig
from laconic.training.settings import Distillation, Scst, Training

Part = Literal["none", "all", "encoder", "decoder"]

FLAT = (  # what stood in [pruning] itself up to version 0.1
    *("sparsity", "scope", "centred", "ticket", "batches", "signed", "weight", "learning_rate", "init", "sampling"),
    *("penalty", "settle", "pace", "adaptive"),
)
CUBIC = ("start", "end", "interval")


@dataclass(frozen=True)
class DataRecipe:
    """Which images and captions to learn from and to score on.

    Attributes:
        name: the data set; docs/DATA.md says what each reads.
        root: folder of the data set; may use ~ and environment variables.
        regions: folder or file of region features, for the encoder "regions".
        tokens: whether captions are made of the data set's own tokens, separated by spaces: "always", "never" (they
            are the sentences as written), or "auto", where those put no spaces between words (Chinese, Thai ...).
        min_count: a word that occurs less often in the training captions becomes <unk>, the unknown word.
        radix: spells each word by digits to this base, 16 or more, so that there are no more ids than digits (ACORT has
            768); 0: every word has an id of its own.
        max_length: longer captions are cut to this many words for training; at most 500.
        train: how many training images to use, from the first; 0 for all.
        val: how many validation images to use, from the first; 0 for all.
    """

    name: str = "flickr8k"
    root: str = ""
    regions: str = ""
    tokens: Tokens = "auto"
    min_count: int = 5
    radix: int = 0
    max_length: int = 18
    train: int = 0
    val: int = 0

    def __post_init__(self) -> None:
        for name, least in {"min_count": 1, "train": 0, "val": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"data.{name} = {getattr(self, name)}; give at least {least}")
        if self.radix and not LEAST_BASE <= self.radix <= MOST_BASE:
            raise ConfigError(f"data.radix = {self.radix}; give 0, or from {LEAST_BASE} to {MOST_BASE:,}")
        check_length("data.max_length", self.max_length)


@dataclass(frozen=True)
class Pruning:
    """What to prune, and how.

    Attributes:
        method: the pruning method; docs/METHODS.md explains each. "none" leaves the captioner dense.
        where: the part of the captioner to prune.
        freeze: the part that keeps the zeros it has, loses no further weights, and does not count in the sparsity.
        options: the options of the method that is chosen.
    """

    method: str = NONE
    where: Literal["all", "encoder", "decoder"] = "decoder"
    freeze: Part = "none"
    options: dict[str, Any] = field(default_factory=dict)

    CHOICES: ClassVar[Mapping[str, Mapping[str, str]]] = {"method": METHODS}
    MOVED: ClassVar[Mapping[str, str]] = {
        **{key: f"options.{key}" for key in FLAT},
        **{key: f"options.schedule.{key}" for key in CUBIC},
    }

    def __post_init__(self) -> None:
        if self.method == NONE and self.options:
            key, value = next(iter(self.options.items()))
            raise ConfigError(
                f"pruning.options.{key} = {value!r}, but nothing is pruned: name a pruning.method "
                f"({', '.join(METHODS)}), or leave it out"
            )
        if self.method == NONE and self.freeze != "none":
            raise ConfigError(
                f'pruning.freeze = "{self.freeze}", but nothing is pruned: name a pruning.method; "frozen" keeps all '
                "zeros that there are"
            )


@dataclass(frozen=True)
class Quantization:
    """Weights that learn as the few whole numbers that a file has of them.

    Attributes:
        bits: of each weight, sign included, from 2 to 8; 0 leaves the captioner float. Convolutions that see few
            channels each keep 8, and matrices of up to 1,024 weights stay float.
        where: the part of the captioner to quantise.
        parts: other bits for weights by the beginning of their names, which is or begins with "encoder" or "decoder",
            such as "decoder.output" = 3; 0 leaves them float.
        start: share of the training after which it begins. Give 0 to a captioner that is trained already.
    """

    bits: int = 0
    where: Literal["all", "encoder", "decoder"] = "decoder"
    parts: dict[str, int] = field(default_factory=dict)
    start: float = 0.5

    def __post_init__(self) -> None:
        for name, bits in self.parts.items():
            if isinstance(bits, Mapping):
                inner = f"{name}.{next(iter(bits), '')}"
                raise ConfigError(f'quantization.parts: write a name with dots in quotes: parts."{inner}" = ...')
            if name.split(".")[0] not in PARTS:
                raise ConfigError(f"quantization.parts: {name!r} begins with neither {' nor '.join(PARTS)}")
        try:
            check_bits({**self.parts, "all": self.bits})
        except PruningError as error:
            raise ConfigError(f"quantization: {error}") from None
        if not 0 <= self.start < 1:
            raise ConfigError(f"quantization.start = {self.start}; give 0 <= start < 1")
        default = type(self)
        if not self.table and (self.start != default.start or self.where != default.where):
            raise ConfigError("quantization: where and start are for weights of few bits: give quantization.bits")

    @property
    def table(self) -> dict[str, int]:
        """Beginnings of names and their bits; empty where all stays float."""
        parts = PARTS if self.where == "all" else (self.where,)
        table = {**(dict.fromkeys(parts, self.bits) if self.bits else {}), **self.parts}
        return table if any(table.values()) else {}

    def reaches(self, part: str) -> bool:
        """Whether anything of the encoder, or of the decoder, is quantised."""
        return any(bits and name.split(".")[0] == part for name, bits in self.table.items())


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run.

    Attributes:
        initial: a packed captioner to start from, for fine-tuning; empty starts from scratch.
        inherit: a packed captioner of the same kind but larger, whose weights this one begins with, cut to its form
            (docs/METHODS.md says how); in the place of initial, which is of the same form.
        encoder_from: a packed captioner whose encoder this one begins with, for a new captioner on it; in the place of
            imagenet.
        objective: "cross_entropy" learns the words of the captions; "scst" then raises their CIDEr score, and needs
            --initial.
        imagenet: a .npz file of encoder weights (docs/DATA.md); empty trains the encoder from scratch. Not read where
            the captioner begins with a packed one, whose encoder it takes.
        decoding: how captions are searched: for the scores after each epoch, which pick the best one, and at the end.
    """

    data: DataRecipe = field(default_factory=DataRecipe)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    imagenet: str = ""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    initial: str = ""
    inherit: str = ""
    encoder_from: str = ""
    pruning: Pruning = field(default_factory=Pruning)
    quantization: Quantization = field(default_factory=Quantization)
    objective: Literal["cross_entropy", "scst"] = "cross_entropy"
    distillation: Distillation = field(default_factory=Distillation)
    scst: Scst = field(default_factory=Scst)
    training: Training = field(default_factory=Training)
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if self.objective == "scst" and not self.initial:
            raise ConfigError('objective = "scst" improves a trained captioner: give its packed file as initial')
        if self.objective == "scst" and self.distillation.teacher:
            raise ConfigError('a teacher is for cross-entropy: leave distillation.teacher out with objective = "scst"')
        if self.objective != "scst" and self.scst != Scst():
            raise ConfigError('scst: its options are for self-critical training: set objective = "scst"')
        begins = [key for key in ("initial", "inherit", "encoder_from") if getattr(self, key)]
        if len(begins) > 1:
            raise ConfigError(f"{' and '.join(begins)} each say what to begin with; give one of them")
        if begins and self.encoder.norm:
            raise ConfigError(
                "encoder.norm = true trains batch norms from scratch, and a packed captioner has them folded into its "
                f"weights: set encoder.norm = false beside {begins[0]}"
            )
        if self.quantization.reaches("encoder") and (self.encoder.norm or self.encoder.name == REGIONS):
            raise ConfigError(
                "region features have no encoder to quantise: quantise the decoder alone"
                if self.encoder.name == REGIONS
                else "encoder.norm = true and a quantised encoder do not go together: a packed file has batch norms "
                "multiplied into weights, which then lie on no grid; set encoder.norm = false"
            )
        if self.encoder.name == REGIONS:
            if self.encoder_from:
                raise ConfigError("region features have no encoder: leave encoder_from out")
            if not self.data.regions:
                raise ConfigError('encoder.name = "regions" needs data.regions, a folder or file of region features')
            if self.training.encoder_learning_rate > 0:
                raise ConfigError("region features have no encoder to train: set training.encoder_learning_rate = 0")
            if self.training.mirror:
                raise ConfigError("region features cannot be mirrored: set training.mirror = false")
