"""The whole path in a few minutes: train a captioner, prune it as it learns, pack, score, use.

An encoder learns to see. Two recipes go on from it one after the other, for the same number of steps; they differ in
the pruning and in that the dense captioner teaches the pruned one. What they leave is packed, scored and shown as a
table and a page. Killed half-way, it continues when run again. Knows no training code and no HTML of its own.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich import box
from rich.table import Table

from laconic import data, store
from laconic.bench.timing import interleaved
from laconic.captioner.engine import Engine
from laconic.captioner.packing import load, save
from laconic.cli.console import console_for
from laconic.cli.pack import is_calibrated
from laconic.cli.paths import DemoFolder
from laconic.cli.progress import watching
from laconic.config import to_mapping
from laconic.data import Scenes, read_image
from laconic.data.scene_words import names_rightly
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.machine.process import settle_in
from laconic.recipes.calibration import calibrate, training_batches
from laconic.recipes.folders import write_json
from laconic.recipes.recipe import DataRecipe, Pruning, Recipe
from laconic.recipes.run import Watcher, run_recipe
from laconic.report.files import read_log
from laconic.report.page import (
    Contender,
    Layer,
    Picture,
    Story,
    captions_page,
    times,
    write_page,
)
from laconic.spec.manifest import LOG, MODEL, RESULT
from laconic.spec.model import DecoderConfig, EncoderConfig
from laconic.training.evaluation import evaluate
from laconic.training.features import PixelCache, cache_pixels
from laconic.training.settings import Distillation, Training
from laconic.training.visual_concepts import ENCODER, learn_concepts

VALUES = {"dense": "exact", "pruned": "compact"}  # of the models, in the order in which they learn: how they are packed
CALIBRATION = 64  # training scenes on which compact values are fitted
SIZE = 48  # pixels of a side that the captioners see
BATCH = 32
ROUNDS = 9  # in which a caption is timed
SEEING = "encoder"  # folder in which the encoder learns to see
CAPTIONER = {"layers": 1, "width": 128, "feed_forward": 256, "heads": 4, "input_dropout": 0.0, "dropout": 0.0}
VISION = EncoderConfig("vgg_small", size=SIZE, stride=16)
PICTURE_SIDE = 256
DECODING = Decoding(beam=3)


@dataclass(frozen=True)
class Demo:
    """The whole path on generated pictures: train, prune, pack, score and caption, with a page to look at.

    Attributes:
        out: folder of everything that is made.
        sparsity: share of the weights that Supermask Pruning removes, encoder and captioner alike.
        encoder_epochs: passes over the training scenes in which the encoder learns to see.
        epochs: passes in which each captioner learns, the same for both.
        train: scenes to learn from.
        val: scenes to score on.
        pictures: captioned on the page; neither model has seen them.
        threads: of the processor; models this small gain nothing from more than one, and lose where others work.
    """

    out: DemoFolder = Path("runs/demo")
    sparsity: float = 0.87
    encoder_epochs: int = 12
    epochs: int = 7
    train: int = 4000
    val: int = 200
    pictures: int = 24
    threads: int = 1


def run_demo(demo: Demo) -> None:
    """Trains, prunes, packs, scores and captions into `demo.out`, and prints the table.

    Leaves dense.safetensors and pruned.safetensors, pictures/*.png, index.html and demo.json. What an earlier
    call finished is not done again.

    Raises:
        ConfigError: for values that are not possible.
        TrainingError: where the folder holds a demo with other settings or cannot be written.
    """
    check(demo)
    console = console_for()
    settle_in(demo.threads)
    console.print(f"[bold]{TITLES['encoder'].format(demo)}[/bold]")
    with watching(console) as watch:
        see(demo, watch)
    for name, recipe in recipes(demo).items():
        console.print(f"[bold]{TITLES[name].format(demo)}[/bold]")
        with watching(console) as watch:
            run_recipe(recipe, demo.out / name, demo.out / "cache", resume=True, watch=watch)
    console.print(f"[bold]{TITLES['files']}[/bold]")
    with watching(console) as watch:
        contenders = timed(demo, pack_and_score(demo, watch))
        pictures = caption_pictures(demo, watch)
    layers = kept_by_layer(packed(demo)["pruned"])
    write_page(captions_page(*contenders, layers, pictures, story(demo)), demo.out / "index.html")
    write_json(demo.out / "demo.json", numbers(demo, contenders, layers))
    console.print(table(contenders))
    lines = [f"The captioned pictures: {demo.out / 'index.html'}", "Try", *(f"  {line}" for line in commands(demo))]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def check(demo: Demo) -> None:
    """ConfigError for values that are not possible."""
    scenes = {split: len(data.load("scenes", None, split)) for split in ("train", "val")}
    for name in ("encoder_epochs", "epochs", "train", "val", "pictures", "threads"):
        value, most = getattr(demo, name), scenes.get(name, 1000)
        if not 1 <= value <= most:
            raise ConfigError(f"demo: {name} is {value}, must be 1 to {most}")
    if not 0 < demo.sparsity < 1:
        raise ConfigError(f"demo: sparsity is {demo.sparsity}, must be between 0 and 1")


TITLES = {
    "encoder": "1 of 4  An encoder learns to see, from {0.train:,} generated scenes and their captions",
    "dense": "2 of 4  A captioner learns to describe them",
    "pruned": "3 of 4  A second one learns from them and from the first, losing {0.sparsity:.0%} of its weights",
    "files": "4 of 4  Both are packed, scored and shown new pictures",
}


def see(demo: Demo, watch: Watcher) -> None:
    """Trains the encoder that both captioners begin with, as ImageNet weights are where there are real photos."""
    scenes = Scenes(demo.train, "train")
    pixels = cache_pixels(scenes, SIZE, demo.out / "cache", partial(watch.stage, "drawing scenes"))
    captions = [scenes[i].captions for i in range(len(scenes))]
    settings = replace(training(demo, 3e-3, 3e-3), epochs=demo.encoder_epochs)
    learn_concepts(replace(VISION, norm=True), pixels, captions, settings, demo.out / SEEING, show=watch.progress)


def recipes(demo: Demo) -> dict[str, Recipe]:
    """The two recipes; they differ in the pruning and in who teaches."""
    dense = Recipe(
        data=DataRecipe("scenes", min_count=1, max_length=16, train=demo.train, val=demo.val),
        encoder=VISION,
        imagenet=str(demo.out / SEEING / ENCODER),
        # attention follows the word before it: what is red is looked at before its shape is named
        decoder=DecoderConfig("object_relation", dict(CAPTIONER)),
        training=training(demo, 2e-3, 5e-4),
    )
    # gates that move by the size of their gradients, as for any encoder that can see already
    options = {"sparsity": demo.sparsity, "adaptive": True, "sampling": "round"}
    pruning = Pruning("supermask", "all", options=options)
    taught = Distillation(str(demo.out / "dense" / MODEL), weight=0.7)
    return {"dense": dense, "pruned": replace(dense, pruning=pruning, distillation=taught)}


def training(demo: Demo, learning_rate: float, encoder_learning_rate: float) -> Training:
    """How long, how fast and in which batches."""
    return Training(
        epochs=demo.epochs,
        batch=min(BATCH, demo.train),
        captions=2,  # of five: the encoder learns from images, of which more are seen in the same time
        warmup=150,
        precision="float32",  # bfloat16 is slow on processors without it
        mirror=False,  # captions say left and right
        learning_rate=learning_rate,
        encoder_learning_rate=encoder_learning_rate,
    )


def pack_and_score(demo: Demo, watch: Watcher) -> tuple[Contender, Contender]:
    """Packs both models as one would ship them, and scores what is in the files on the validation scenes."""
    val = Scenes(demo.val, "val")
    source = PixelCache.read(val, SIZE)
    contenders = []
    for name, file in packed(demo).items():
        pack(demo, name, watch)
        scores, captions = evaluate(
            load(file),
            source,
            val,
            DECODING,
            names=("Bleu", "CIDEr"),
            progress=lambda done, of, name=name: watch.stage(f"scoring {name}", done, of),  # type: ignore[misc]
        )
        right = sum(names_rightly(captions[i], val.scene(i).things) for i in range(len(val))) / len(val)
        contenders.append(contender(name, file, scores, right, demo.out / name / LOG))
    dense, pruned = contenders
    return dense, pruned


def timed(demo: Demo, contenders: tuple[Contender, Contender]) -> tuple[Contender, Contender]:
    """With the processor time that a caption takes on one core: dense as PyTorch runs it, pruned as the engine does."""
    files, pixels = packed(demo), Scenes(1, "test", size=SIZE)[0].pixels()
    module, engine = load(files["dense"]), Engine.load(files["pruned"], threads=1)
    ways = {"dense": partial(module.caption, [pixels], DECODING), "pruned": partial(engine.caption, [pixels], DECODING)}
    for way in ways.values():  # warm
        way()
    seconds = interleaved(ways, ROUNDS)
    dense, pruned = (replace(one, milliseconds=1000 * seconds[one.name]) for one in contenders)
    return dense, pruned


def pack(demo: Demo, name: str, watch: Watcher) -> None:
    """Packs a model with the values of VALUES, unless that is done; compact ones are fitted on its training scenes."""
    folder, file, values = demo.out / name, packed(demo)[name], VALUES[name]
    watch.stage(f"packing {name}", 0, 1)
    if not file.exists() or file.stat().st_mtime_ns < (folder / MODEL).stat().st_mtime_ns:
        captioner, steps = load(folder / MODEL), None
        scores = json.loads((folder / RESULT).read_text(encoding="utf8"))["scores"]
        if is_calibrated(values):
            steps = calibrate(captioner, values, training_batches(captioner, folder, CALIBRATION))
        save(captioner, file, values, steps=steps, scores=scores)
    watch.stage(f"packing {name}", 1, 1)


def contender(name: str, file: Path, scores: Mapping[str, float | None], right: float, log: Path) -> Contender:
    """What the page and the table say of one model."""
    packed = store.inspect(file)
    curves = read_curves(log)
    return Contender(
        name,
        right=right,
        cider=scores["CIDEr"] or 0.0,
        bleu4=scores["Bleu_4"] or 0.0,
        weights=packed.weights,
        non_zeros=packed.non_zeros,
        file_bytes=packed.file_bytes,
        loss=curves["loss"],
        sparsity=curves["sparsity"],
        validation=curves["CIDEr"],
    )


def read_curves(log: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of loss, sparsity and validation CIDEr from a run's log."""
    rows = list(read_log(log))
    return {key: [(row["step"], row[key]) for row in rows if key in row] for key in ("loss", "sparsity", "CIDEr")}


def kept_by_layer(file: Path) -> list[Layer]:
    """Matrices and convolutions of a packed captioner, in the order of the model."""
    tensors = store.inspect(file).tensors
    return [Layer(t.name.removesuffix(".weight"), math.prod(t.shape), t.non_zeros) for t in tensors if len(t.shape) > 1]


def caption_pictures(demo: Demo, watch: Watcher) -> list[Picture]:
    """Draws test scenes as PNG files and has both packed files caption those files."""
    scenes = Scenes(demo.pictures, "test", size=PICTURE_SIDE)
    folder = demo.out / "pictures"
    folder.mkdir(exist_ok=True)
    files = [folder / f"scene{i:02d}.png" for i in range(len(scenes))]
    for i, file in enumerate(files):
        Image.fromarray(scenes[i].pixels()).save(file)
    images = [read_image(file) for file in files]
    captions = {}
    for done, (name, file) in enumerate(packed(demo).items(), 1):
        captions[name] = Engine.load(file, threads=demo.threads).caption(images, DECODING)
        watch.stage("captioning pictures", done * len(files), len(VALUES) * len(files))
    return [
        Picture(file.name, image, captions["dense"][i], captions["pruned"][i], scenes[i].captions[0])
        for i, (file, image) in enumerate(zip(files, images, strict=True))
    ]


# What is said of it


def story(demo: Demo) -> Story:
    """The words of the page."""
    opening = (
        f"Two captioners learned to describe the same {demo.train:,} pictures, for the same number of steps. "
        f"One kept every weight. The other found out, while it learned from the pictures and from the first, "
        f"which {demo.sparsity:.0%} of its weights it can do without."
    )
    return Story(opening, commands(demo), learned=True)


def commands(demo: Demo) -> list[str]:
    """What to try next; the paths exist."""
    file = packed(demo)["pruned"]
    return [
        f"laconic caption {file} {demo.out / 'pictures' / 'scene00.png'}",
        f"laconic inspect {file}",
    ]


def table(contenders: Sequence[Contender]) -> Table:
    """Dense against pruned, for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("model")
    for heading in ("CIDEr", "of dense", "named right", "BLEU-4", "non-zeros", "file bytes", "ratio", "ms a caption"):
        shown.add_column(heading, justify="right")
    dense = contenders[0]
    for model in contenders:
        shown.add_row(
            model.name,
            f"{100 * model.cider:.1f}",
            f"{model.cider / dense.cider:.1%}" if dense.cider else "",
            f"{model.right or 0.0:.1%}",
            f"{100 * model.bleu4:.1f}",
            f"{model.non_zeros:,}",
            f"{model.file_bytes:,}",
            times(dense.file_bytes, model.file_bytes),
            f"{model.milliseconds or 0.0:.1f}",
        )
    return shown


def numbers(demo: Demo, contenders: Sequence[Contender], layers: Sequence[Layer]) -> dict[str, Any]:
    """Everything measured, for demo.json."""
    models = {}
    for model in contenders:
        result = json.loads((demo.out / model.name / RESULT).read_text(encoding="utf8"))
        measured = {
            "CIDEr": model.cider,
            "Bleu_4": model.bleu4,
            "named_right": model.right,
            "weights": model.weights,
            "non_zeros": model.non_zeros,
            "file_bytes": model.file_bytes,
            "milliseconds": model.milliseconds,
        }
        models[model.name] = {**measured, "seconds": result["seconds"]}
    return {
        "settings": {**to_mapping(demo), "out": str(demo.out)},
        "threads": demo.threads,
        "models": models,
        "layers": [to_mapping(layer) for layer in layers],
    }


def packed(demo: Demo) -> dict[str, Path]:
    """The file of each model."""
    return {name: demo.out / f"{name}.safetensors" for name in VALUES}
