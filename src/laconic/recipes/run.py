"""Carrying out a Plan: features, training, scores, and the files that a finished run leaves.

    run_recipe(recipe, folder, cache)      # plan and run, unless the folder holds the run finished

A run lives in a folder: `recipe.json`, `log.jsonl`, checkpoints while it lasts, `model.safetensors` and `result.json`
when it is done. What runs sees what the plan has built; no path, name or option is looked up here.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from laconic.captioner.accounting import caption_operations, matrices, non_zeros
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import folded, save, shorten_floats, still_on_grid
from laconic.compress.masked.pruner import Pruner
from laconic.compress.quantized.aware import Quantizer
from laconic.config import digest, to_mapping
from laconic.data import Dataset
from laconic.machine.distributed import broadcast, is_writer, writer_first
from laconic.machine.process import slow_in_bfloat16
from laconic.metrics import caption_quality
from laconic.recipes.folders import AnyRecipe, claim, write_json
from laconic.recipes.plan import Place, Plan, plan
from laconic.recipes.recipe import Recipe
from laconic.spec.manifest import CAPTIONS, GATES, MODEL, RESULT, TAUGHT
from laconic.training.batches import Batches, Source, make_batches
from laconic.training.checkpoint import save_checkpoint
from laconic.training.distillation import look_themselves, members_of
from laconic.training.evaluation import Validator, evaluate
from laconic.training.features import RegionSource, cache_features, cache_pixels, weights_digest
from laconic.training.given import Progress
from laconic.training.loop import Run, best_device, cross_entropy
from laconic.training.taught import read_captions, written_by

SLOW = (
    "note: this processor has no instructions for bfloat16, in which training is many times slower here; "
    "with --training.precision float32 it is not"
)


@dataclass(frozen=True)
class Watcher:
    """How a run is shown: `stage` for feature extraction and evaluation, `progress` for training, `say` for lines."""

    stage: Callable[[str, int, int], None] = lambda *_: None
    progress: Callable[[Progress], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None


def run_recipe(
    recipe: Recipe, folder: Path, cache: Path, *, resume: bool = False, watch: Watcher | None = None
) -> dict[str, Any]:
    """Carries a recipe out in `folder`; returns what `result.json` holds.

    A finished run is not repeated. An interrupted one goes on with `resume`.

    Raises:
        TrainingError: where the folder holds another recipe's run, or an interrupted one and `resume` is off.
    """
    watch = watch or Watcher()
    return carry_out(recipe, folder, resume, watch, lambda: run(plan(recipe, Place(folder, cache, resume)), watch))


def carry_out(
    recipe: AnyRecipe, folder: Path, resume: bool, watch: Watcher, work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The result of `work` in a folder that is this process's own meanwhile, or of the run that is finished there."""
    with claim(folder, recipe, resume) if is_writer() else nullcontext() as done:
        finished = broadcast(done)
        if finished is not None:
            watch.say(f"{folder} is finished; nothing to do")
            return finished
        if recipe.training.precision == "bf16" and best_device().type == "cpu" and slow_in_bfloat16():
            watch.say(SLOW)
        return work()


def run(plan: Plan, watch: Watcher) -> dict[str, Any]:
    """Trains, scores and packs in a folder that is this process's own."""
    started = time.perf_counter()
    with writer_first():
        sources = open_sources(plan, watch)
    seconds = {"features": round(time.perf_counter() - started, 1)}
    training = prepare(plan, sources, watch)
    if plan.place.resume:
        training.resume()
    training.fit()
    steps = finalize(plan, training)
    if not is_writer():
        return broadcast({})
    seconds["training"] = round(training.seconds, 1)
    return broadcast(conclude(plan, training, sources, seconds, steps, watch))


# Stages


def open_sources(plan: Plan, watch: Watcher) -> dict[str, Source]:
    """Inputs of the training ("train", with mirror images where asked for) and of the validation ("val")."""
    return {
        "train": _source(plan, plan.train, "train", watch),
        "val": _source(plan, plan.val, "val", watch),
    }


def _source(plan: Plan, examples: Dataset, split: str, watch: Watcher) -> Source:
    """Cached features where the encoder stays as it is, cached pixels where it changes."""
    if plan.regions is not None:
        return RegionSource.of(examples, plan.regions)
    encoder, config, cache = plan.captioner.encoder, plan.captioner.config.encoder, plan.place.cache
    if plan.encoder_changes:
        return cache_pixels(examples, config.size, cache, partial(watch.stage, f"{split} photos"))
    mirror = plan.training.mirror and split == "train"
    progress = partial(watch.stage, f"{split} features")
    return cache_features(encoder, config, examples, cache, mirror=mirror, progress=progress)


def prepare(plan: Plan, sources: Mapping[str, Source], watch: Watcher) -> Run:
    """The training: batches, masks and objective put together."""
    settings = plan.training
    batches = make_batches(
        sources["train"],
        learned_captions(plan, sources["train"], watch),
        plan.captioner.vocabulary,
        max_length=plan.recipe.data.max_length,
        size=settings.batch,
        seed=settings.seed,
        mirror=settings.mirror,
        captions_each=settings.captions,
    )
    return Run(
        plan.captioner,
        batches,
        settings,
        plan.place.folder,
        objective=plan.objective,
        pruner=make_pruner(plan, batches),
        quantizer=make_quantizer(plan, batches),
        validate=Validator.of(sources["val"], plan.val, plan.recipe.decoding),
        show=watch.progress,
        origin=plan.origin,
    )


def learned_captions(plan: Plan, source: Source, watch: Watcher) -> list[tuple[str, ...]]:
    """What the captioner learns, by row: the images' own captions, and those that a teacher writes where it is asked.

    The teacher's stay in the run's folder while it lasts, so that a run goes on with the same ones; where the folder's
    are of another teacher, they are written anew.
    """
    own = [tuple(plan.train[i].captions) for i in range(len(plan.train))]
    options, teacher = plan.recipe.distillation, plan.teacher
    if teacher is None or not options.sequences:
        return own
    path = plan.place.folder / TAUGHT
    decoding = replace(plan.recipe.decoding, beam=max(plan.recipe.decoding.beam, options.sequences))
    origin = digest(to_mapping(options), to_mapping(decoding), plan.origin, weights_digest(teacher))
    with writer_first():  # the others find what it has written
        taught = read_captions(path, origin) if path.is_file() else None
        if taught is None:
            if look_themselves(options, members := members_of(teacher)):
                size, seen = members[0].config.encoder.size, partial(watch.stage, "photos for the teacher")
                source = cache_pixels(plan.train, size, plan.place.cache, seen)
            taught = written_by(
                teacher.to(best_device()), source, own, decoding, count=options.sequences, choice=options.choice,
                progress=partial(watch.stage, "captions of the teacher"),
            )  # fmt: skip
            write_json(path, {"origin": origin, "captions": taught})
    return taught if options.alone else [first + second for first, second in zip(own, taught, strict=True)]


def make_pruner(plan: Plan, batches: Batches) -> Pruner | None:
    """The plan's pruner on its captioner, which has seen the first losses where its method needs them."""
    if plan.masks is None:
        return None
    method, where, freeze = plan.masks.method, plan.masks.where, plan.masks.freeze
    steps = plan.training.epochs * len(batches)
    # an encoder whose learning rate is 0 stands still, and is pruned where the recipe says so
    pruner = Pruner(plan.captioner, method, steps=steps, where=where, freeze=freeze, frozen="prune")
    if method.needs_losses:
        pruner.sense(first_losses(plan, batches, method.losses_wanted))
    return pruner


def make_quantizer(plan: Plan, batches: Batches) -> Quantizer | None:
    """The quantizer of the plan's recipe on its captioner, behind its masks."""
    asked = plan.recipe.quantization
    if not asked.table:
        return None
    start = int(asked.start * plan.training.epochs * len(batches))
    return Quantizer(plan.captioner, asked.table, start=start, steps=plan.steps)


def finalize(plan: Plan, training: Run) -> dict[str, float]:
    """Makes an ordinary captioner of what was trained; the steps of the weights that were quantised, here or before.

    Of a quantised one all is as its file holds it from now on, so that what is scored is what is shipped; but features
    of an encoder that rests were taken before its float weights are rounded to float16 here.
    """
    if isinstance(training.pruner, Pruner):
        training.pruner.finalize()
    steps = still_on_grid(plan.captioner, plan.steps)  # what rests stays what it was
    if isinstance(training.quantizer, Quantizer):
        training.quantizer.finalize()
        steps |= training.quantizer.steps()
        shorten_floats(plan.captioner, steps)
    return steps


def first_losses(plan: Plan, batches: Batches, count: int) -> Iterator[Tensor]:
    """Training losses of the first `count` batches, those of further epochs where one has fewer."""
    plan.captioner.train()
    device = next(plan.captioner.parameters()).device
    for step in range(count):
        batch = batches(*divmod(step, len(batches))).to(device)
        logits = plan.captioner(batch.inputs, batch.tokens)
        yield cross_entropy(logits, batch.tokens, plan.training.label_smoothing)


def conclude(
    plan: Plan,
    training: Run,
    sources: Mapping[str, Source],
    seconds: dict[str, float],
    steps: Mapping[str, float],
    watch: Watcher,
) -> dict[str, Any]:
    """Scores and packs what was trained; writes and returns the result, and removes the checkpoints."""
    folder, captioner = plan.place.folder, plan.captioner
    if isinstance(training.pruner, Pruner) and (
        gates := training.pruner.gates()
    ):  # in bfloat16: their signs matter most
        save_checkpoint({"gates": {name: gate.bfloat16() for name, gate in gates.items()}}, folder / GATES)
    started = time.perf_counter()
    scoring = partial(watch.stage, "scoring")
    scores, captions = evaluate(captioner, sources["val"], plan.val, plan.recipe.decoding, progress=scoring)
    seconds["scoring"] = round(time.perf_counter() - started, 1)
    write_json(folder / CAPTIONS, [{"image_id": k, "caption": v} for k, v in captions.items()])
    learned = {caption for i in range(len(plan.train)) for caption in plan.train[i].captions}
    result = {
        "scores": dict(scores),
        "quality": asdict(caption_quality(list(captions.values()), learned)),
        **pack(captioner, folder / MODEL, dict(scores), steps),
        "seconds": {key: seconds[key] for key in ("scoring", "features", "training")},
        "best": training.best,
        "skipped": [skipped.reason for source in sources.values() for skipped in source.skipped],
    }
    write_json(folder / RESULT, result)
    for passing in (training.last, training.best_path, folder / TAUGHT):  # model.safetensors replaces them
        passing.unlink(missing_ok=True)
    return result


def pack(captioner: ImageCaptioner, path: Path, scores: dict[str, float], steps: Mapping[str, float]) -> dict[str, Any]:
    """Writes the packed file, which loses nothing; gives its size, and what is in it: weights that are not zero, and
    operations."""
    packed = folded(captioner.cpu(), exact=True)  # what is counted is what the file holds
    return {
        "bytes": save(packed, path, "trained" if steps else "exact", steps=steps, scores=scores),
        "non_zeros": non_zeros(packed),
        "matrices": matrices(path),
        "operations": asdict(caption_operations(packed)),
    }
