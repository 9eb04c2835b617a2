"""A recipe that slims a vision-language Transformer: a TOML file with `task = ...`. Here is no torch.

    task = "classify"
    [model]   which one, from a folder or fresh      [data]    what it learns from
    [dense]   trains a fresh model first             [slim]    which units go, and how
    [search]  while which they are chosen            [training]  of what is left, or of the dense control

Stages, in this order: dense (where model.initial is empty and dense.epochs > 0), search and shrink (unless
slim.method is "none"), training. Each is one run of laconic.training.loop in a folder of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from laconic.compress.structured.methods import METHODS, Budget, Method
from laconic.errors import ConfigError
from laconic.training.settings import Distillation, Training

TaskName = Literal["classify", "segment", "retrieval", "caption", "vqa", "nlvr2"]
STAGES = ("dense", "search", "training")  # each a folder within that of a run
NONE = "none"  # the method that keeps the model dense


@dataclass(frozen=True)
class Tower:
    """The shape of a fresh Transformer.

    Attributes:
        width: of the residual stream.
        layers: number of layers.
        heads: of each attention.
        feed_forward: hidden width of the feed-forward networks; 0 for 4 x width.
        dropout: of hidden states and attention.
    """

    width: int = 192
    layers: int = 4
    heads: int = 3
    feed_forward: int = 0
    dropout: float = 0.0


@dataclass(frozen=True)
class ModelRecipe:
    """Which model.

    Attributes:
        initial: a Hugging Face folder to start from, dense or slim; empty makes a fresh model.
        kind: of a fresh model: "vit", "deit", "clip", "blip", "segmenter", "nlvr2"; empty for the task's own.
        encoder: of the images: "" reads pixels; the name of an encoder of laconic (docs/DATA.md), such as
            "mobilenet_v2", puts its frozen features in their place, one cell a patch.
        imagenet: a .npz file of that encoder's weights.
        stride: of that encoder's grid, 16 or 32.
        image: side of the square that images are resized to.
        patch: side of a patch of pixels; without an encoder.
        vision, text: shapes of a fresh model's towers.
        vocabulary: most words of a fresh model's tokenizer.
    """

    initial: str = ""
    kind: str = ""
    encoder: str = ""
    imagenet: str = ""
    stride: int = 32
    image: int = 224
    patch: int = 16
    vision: Tower = field(default_factory=Tower)
    text: Tower = field(default_factory=Tower)
    vocabulary: int = 4000


@dataclass(frozen=True)
class SlimData:
    """What is learned from and scored on.

    Attributes:
        name: layout of the data; docs/DATA.md lists those of each task.
        root: folder of the data; may use ~ and environment variables.
        train: how many training examples to use, from the first; 0 for all.
        val: how many validation examples to use, from the first; 0 for all.
    """

    name: str = ""
    root: str = ""
    train: int = 0
    val: int = 0


@dataclass(frozen=True)
class Slim:
    """Which units go, and how.

    Attributes:
        method: docs/UPOP.md explains each; "none" keeps the model dense.
        ratio: share of the prunable budget that goes.
        budget: what the ratio is a share of.
        multiple: widths become multiples of this, with the budget repaired.
        remove: modules may go altogether; otherwise each keeps at least one unit.
        interval: search steps between updates of the masks; 0 for as many as 1 % of the budget takes.
    """

    method: str = NONE
    ratio: float = 0.5
    budget: Budget = "parameters"
    multiple: int = 1
    remove: bool = False
    interval: int = 0

    CHOICES: ClassVar[Mapping[str, Mapping[str, Method]]] = {"method": METHODS}

    def __post_init__(self) -> None:
        if self.method not in (NONE, *METHODS):
            raise ConfigError(f"slim.method = {self.method!r}; choose one of {NONE}, {', '.join(METHODS)}")
        if not 0 < self.ratio < 1:
            raise ConfigError(f"slim.ratio = {self.ratio}; give 0 < ratio < 1")
        if self.multiple < 1 or self.interval < 0:
            raise ConfigError(f"slim: multiple = {self.multiple}, interval = {self.interval}; give at least 1 and 0")
        published = self.method != NONE and METHODS[self.method].published
        if published and (self.budget, self.multiple, self.remove) != ("parameters", 1, False):
            raise ConfigError(
                f'slim.method = "{self.method}" ranks as published, which knows no other budget, multiples or removal: '
                "leave slim.budget, slim.multiple and slim.remove out"
            )


@dataclass(frozen=True)
class Stage:
    """A training beside the last one; batches, precision and seed are those of [training].

    Attributes:
        epochs: of this stage.
        learning_rate: of this stage.
        schedule: of the learning rate.
    """

    epochs: int = 0
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"


@dataclass(frozen=True)
class Search(Stage):
    """The training while which units are chosen; batches, precision and seed are those of [training].

    Attributes:
        epochs: of the search.
        learning_rate: of the search.
        schedule: of the learning rate; constant as published, so that late steps tell as much of the units as early
            ones.
    """

    learning_rate: float = 3e-4
    schedule: Literal["cosine", "constant"] = "constant"


@dataclass(frozen=True)
class TaskOptions:
    """Options of the tasks' losses and searches; what a task does not have must be left at its default.

    Attributes:
        mixup: alpha of mixup, 0 for none (classify).
        cutmix: alpha of CutMix, 0 for none (classify).
        queue: embeddings in the momentum queue, 0 for none (retrieval).
        momentum: of the momentum encoders (retrieval).
        soft: share of the momentum model's soft targets (retrieval).
        matching: trains the image-text matching head with hard negatives and re-ranks by it (retrieval, BLIP).
        rerank: candidates that the matching head re-ranks (retrieval, BLIP).
        prompt: text before each caption, whose words the loss leaves out (caption).
        beam, max_length, min_length: of the search for captions (caption).
        multi_scale: also scores over several scales (segment).
        candidates: answers that are ranked by their likelihood, out of the most likely first words (vqa).
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    queue: int = 0
    momentum: float = 0.995
    soft: float = 0.4
    matching: bool = False
    rerank: int = 32
    prompt: str = ""
    beam: int = 3
    max_length: int = 20
    min_length: int = 5
    multi_scale: bool = False
    candidates: int = 128


@dataclass(frozen=True)
class SlimRecipe:
    """Everything that decides the outcome of slimming a model.

    Attributes:
        task: what the model is to do.
        training: of the slim model, or of the dense control where nothing is slimmed.
        distillation: teacher "dense" is the model before the search; empty for none.
    """

    task: TaskName
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: SlimData = field(default_factory=SlimData)
    dense: Stage = field(default_factory=Stage)
    slim: Slim = field(default_factory=Slim)
    search: Search = field(default_factory=Search)
    training: Training = field(default_factory=Training)
    distillation: Distillation = field(default_factory=Distillation)
    options: TaskOptions = field(default_factory=TaskOptions)

    def __post_init__(self) -> None:
        slims = self.slim.method != NONE
        if slims and not self.search.epochs:
            raise ConfigError(
                f'search.epochs = 0, but slim.method = "{self.slim.method}" needs a search: give at least 1'
            )
        if self.model.initial and self.dense.epochs:
            raise ConfigError("dense.epochs trains a fresh model: set it to 0 beside model.initial")
        teacher = self.distillation.teacher
        if teacher not in ("", "dense"):
            raise ConfigError(f'distillation.teacher = {teacher!r}; "dense" is the model before the search, "" none')
        if teacher and not slims:
            raise ConfigError(f'distillation.teacher teaches a slim model, and slim.method = "{NONE}": leave it out')
        for name in ("ensemble", "sequences", "features"):
            if getattr(self.distillation, name):
                raise ConfigError(f"distillation.{name} is for captioners with an encoder of laconic's: leave it out")
        if self.training.encoder_learning_rate:
            raise ConfigError("training.encoder_learning_rate is for captioners, whose encoder may learn: leave it out")
