"""The verb `slim`, and what `train` does with a recipe that slims a Transformer.

Knows how such a recipe meets the command line, not what it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from rich import box
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, arg

from laconic.cli.carrying import carried_out
from laconic.cli.console import list_skipped
from laconic.cli.paths import RunFolder
from laconic.compress.structured.methods import METHODS, Budget
from laconic.config import read_toml
from laconic.errors import ConfigError
from laconic.spec.manifest import NET
from laconic.tasks.settings import NONE, Search, Slim, SlimRecipe, Stage, TaskName
from laconic.training.settings import Training

T = TypeVar("T")
USUAL = SlimRecipe(
    "caption",
    slim=Slim("upop"),
    search=Search(5, 1e-5),
    training=Training(epochs=5, learning_rate=1e-5, precision="float32", weight_decay=0.05),
)
if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS)]


@dataclass(frozen=True)
class TrainSlim:
    """Slims a Transformer as a recipe says: search, shrink, training. Every key of the recipe is an option."""

    recipe: Annotated[Path, Positional, arg(metavar="RECIPE.toml")]
    """A recipe with a task: the model, its data, and how it is slimmed and trained."""
    settings: Annotated[SlimRecipe, arg(name="")]
    """The recipe's values, which options override."""
    out: RunFolder = None
    """Folder of the run; runs/<name of the recipe> by default."""
    cache: Annotated[Path, arg(metavar="DIR")] = Path("cache")
    """Folder of cached images and image features, which all runs share."""
    resume: FlagCreatePairsOff[bool] = False
    """Go on with a run that was stopped."""
    threads: int = 0
    """Processor threads; 0 for all."""


@dataclass(frozen=True)
class SlimFolder:
    """Slims a Hugging Face model for a task: finds the units that matter least, removes them, trains what is left."""

    model: Annotated[Path, Positional, arg(metavar="MODEL_FOLDER")]
    """A folder that save_pretrained has written: BLIP, CLIP, ViT, DeiT, or laconic's Segmenter and NLVR2 model."""
    task: TaskName
    """What the model does."""
    data: str
    """Layout of the data; docs/DATA.md lists those of each task."""
    root: Annotated[str, arg(metavar="DIR")]
    """Folder of the data."""
    out: RunFolder = None
    """Folder of the run, runs/<name of the model's folder> by default; the slim model comes to lie in its model/."""
    ratio: float | None = None
    """Share of the budget that goes; 0.5 unless the recipe says otherwise."""
    budget: Budget | None = None
    """What the ratio is a share of; true parameters unless the recipe says otherwise."""
    method: MethodName | None = None
    """How units are chosen; docs/UPOP.md explains each. upop unless the recipe says otherwise."""
    multiple: int | None = None
    """Widths become multiples of this; 1 unless the recipe says otherwise."""
    remove: FlagCreatePairsOff[bool] = False
    """Modules may go altogether; otherwise each keeps at least one unit."""
    search_epochs: int | None = None
    """Epochs of the search; 5 unless the recipe says otherwise."""
    epochs: int | None = None
    """Epochs of training after it; 5 unless the recipe says otherwise."""
    learning_rate: float | None = None
    """Of both; 1e-5 unless the recipe says otherwise."""
    batch: int | None = None
    """Examples per step; 32 unless the recipe says otherwise."""
    precision: Literal["float32", "bf16"] | None = None
    """Of matrix products in training; float32 unless the recipe says otherwise."""
    distil: FlagCreatePairsOff[bool] = False
    """Let the dense model teach the slim one."""
    recipe: Annotated[Path | None, arg(metavar="RECIPE.toml")] = None
    """A recipe for what has no option here; the options above override it."""
    cache: Annotated[Path, arg(metavar="DIR")] = Path("cache")
    """Folder of cached images."""
    resume: FlagCreatePairsOff[bool] = False
    """Go on with a run that was stopped."""
    threads: int = 0
    """Processor threads; 0 for all."""


def slim(options: SlimFolder) -> None:
    """Makes the recipe that the options describe, and carries it out."""
    base = USUAL if options.recipe is None else read_toml(options.recipe, SlimRecipe)
    if options.recipe is not None and base.task != options.task:
        raise ConfigError(f"{options.recipe}: has task {base.task!r}, but --task is {options.task!r}; give one of them")
    recipe = replace(
        base,
        task=options.task,
        model=replace(base.model, initial=str(options.model)),
        data=replace(base.data, name=options.data, root=options.root),
        dense=Stage(),
        slim=_slim(base.slim, options),
        search=_given(base.search, epochs=options.search_epochs, learning_rate=options.learning_rate),
        training=_given(
            base.training,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            batch=options.batch,
            precision=options.precision,
        ),
        distillation=replace(base.distillation, teacher="dense") if options.distil else base.distillation,
    )
    folder = options.out or Path("runs") / options.model.resolve().name
    carry_out(recipe, folder, options.cache, resume=options.resume, threads=options.threads)


def _slim(base: Slim, options: SlimFolder) -> Slim:
    method = options.method or ("upop" if base.method == NONE else base.method)
    remove = options.remove or base.remove
    return _given(
        base, method=method, ratio=options.ratio, budget=options.budget, multiple=options.multiple, remove=remove
    )


def _given(table: T, **values: Any) -> T:
    """The table of a recipe with the values that are not None."""
    return replace(table, **{key: value for key, value in values.items() if value is not None})  # type: ignore[type-var]


def train_slim(options: TrainSlim) -> None:
    """Carries out a recipe with a task."""
    folder = options.out or Path("runs") / options.recipe.stem
    carry_out(options.settings, folder, options.cache, resume=options.resume, threads=options.threads)


def carry_out(recipe: SlimRecipe, folder: Path, cache: Path, *, resume: bool, threads: int) -> None:
    """Runs a recipe and shows what came of it."""
    console, result = carried_out(recipe, folder, cache, resume=resume, threads=threads)
    if result is None:
        return
    console.print(slim_table(result))
    list_skipped(console, result["skipped"])
    lines = ["Next:", f"  python -c 'from laconic import hf; net = hf.from_pretrained(\"{folder / NET}\")'"]
    for line in [*lines, f"  laconic report {folder} -o {folder.name}-report"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def slim_table(result: Mapping[str, Any]) -> Table:
    """What a slim run came to: `result.json` of its folder, beside what the model was before."""
    table = Table("", "before", "now", box=box.SIMPLE_HEAD, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in result["scores"].items():
        before = result["dense"].get(name)
        table.add_row(name, "" if before is None else f"{before:.2f}", f"{value:.2f}")
    for name, value in result["baselines"].items():
        table.add_row(f"{result['selection']}, {name}", f"{value:.2f}", "")
    table.add_section()
    for key, label in {"parameters": "parameters", "macs": "multiply-adds"}.items():
        counts = result[key]
        share = counts["now"] / max(1, counts["dense"])
        table.add_row(label, f"{counts['dense']:,}", f"{counts['now']:,} ({share:.1%})")
    table.add_section()
    for stage, seconds in result["seconds"].items():
        table.add_row(stage, "", f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s")
    return table
