"""Carrying out a recipe that slims a Transformer: dense, search and shrink, training; resumable at each.

    run_slim(recipe, folder, cache)

Each stage is one run of the training loop in a folder of its own, and hands a Hugging Face folder to the next:
`dense/model`, `slim/model`, and at last `model`. A folder is there whole or not at all, so it is also what tells that a
stage is over.
"""

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from laconic.compress.modes import evaluated
from laconic.compress.structured.adapters import find_groups
from laconic.compress.structured.costs import count
from laconic.compress.structured.groups import Groups
from laconic.compress.structured.methods import METHODS
from laconic.compress.structured.upop import UPop
from laconic.config import digest, to_mapping
from laconic.errors import TrainingError
from laconic.hf.folders import from_pretrained
from laconic.machine.distributed import barrier, broadcast, is_writer, writer_first
from laconic.recipes.folders import write_json
from laconic.recipes.run import Watcher, carry_out
from laconic.spec.manifest import NET, RESULT
from laconic.tasks.settings import NONE, STAGES, SlimRecipe, Stage
from laconic.tasks.table import open_task
from laconic.tasks.task import Task
from laconic.training.given import Loss, Masking
from laconic.training.loop import Run, best_device

DENSE, SEARCH, TRAINING = STAGES
SECONDS = "seconds.json"  # of a stage that is over
SLIM = "slim"  # folder of what a search leaves
CHOSEN = "slim.json"  # what a search has found
LEAST_ERROR = 1e-5  # of outputs, beside the largest of them


@dataclass(frozen=True)
class Work:
    """A recipe being carried out."""

    recipe: SlimRecipe
    folder: Path
    task: Task
    watch: Watcher
    seconds: dict[str, float]


def run_slim(
    recipe: SlimRecipe, folder: Path, cache: Path, *, resume: bool = False, watch: Watcher | None = None
) -> dict[str, Any]:
    """Carries a recipe out in `folder`; returns what `result.json` holds.

    A finished run is not repeated. An interrupted one goes on with `resume`.

    Raises:
        TrainingError: where the folder holds another recipe's run, or an interrupted one and `resume` is off.
    """
    watch = watch or Watcher()

    def work() -> dict[str, Any]:
        torch.manual_seed(recipe.training.seed)
        with writer_first():
            task = open_task(recipe, cache, watch.stage)
        return _slim(Work(recipe, folder, task, watch, {}))

    return carry_out(recipe, folder, resume, watch, work)


def _slim(work: Work) -> dict[str, Any]:
    recipe, task = work.recipe, work.task
    net = task.net.to(best_device())
    slims = recipe.slim.method != NONE
    if slims:
        _upop(work, _groups(work, net)).release()  # what is wrong with the search is said before a long training
    if recipe.dense.epochs:
        net = _stage(work, DENSE, recipe.dense, net)
    dense = _facts(work, net)
    teacher, groups = None, dict[str, Any]()
    if slims:
        teacher = copy.deepcopy(net) if recipe.distillation.teacher else None
        net, groups = _search(work, net)
    settings = recipe.training
    stage = Stage(settings.epochs, settings.learning_rate, settings.schedule)
    net = _stage(work, TRAINING, stage, net, teacher=teacher, out=work.folder / NET)
    return broadcast(_conclude(work, net, dense, groups) if is_writer() else {})


def _stage(
    work: Work, name: str, stage: Stage, net: nn.Module, *, teacher: nn.Module | None = None, out: Path | None = None
) -> nn.Module:
    """Trains a stage to its end, unless its folder says that it is over; the net it leaves."""
    out = out or work.folder / name / NET
    if not _there(out):
        _fit(work, name, stage, net, teacher=teacher)
        _hand_over(work, net, out)
    return from_pretrained(out).to(best_device())


def _fit(
    work: Work,
    name: str,
    stage: Stage,
    net: nn.Module,
    *,
    teacher: nn.Module | None = None,
    pruner: Masking | None = None,
) -> None:
    recipe, task = work.recipe, work.task
    options = recipe.distillation
    learner = task.learner(net, teacher, options.weight, options.temperature)
    settings = replace(recipe.training, epochs=stage.epochs, learning_rate=stage.learning_rate, schedule=stage.schedule)
    run = Run(
        learner,
        task.batches,
        settings,
        work.folder / name,
        objective=_learned,
        pruner=pruner,
        validate=lambda model: _scores(task, model.get_submodule("net")),
        show=work.watch.progress,
        origin={"recipe": digest(to_mapping(recipe))},
        selection=task.selection,
        percent=1.0,
    )
    run.resume()
    run.fit()
    work.seconds[name] = round(run.seconds, 1)
    if is_writer():
        write_json(work.folder / name / SECONDS, work.seconds[name])


def _learned(model: nn.Module, batch: Any) -> Loss:
    return Loss(model(batch), batch.count)


def _search(work: Work, net: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """The slim net, and of each group its part, size and width."""
    out = work.folder / SLIM / NET
    groups = _groups(work, net)
    facts = {group.name: {"part": group.part, "size": group.size} for group in groups}
    if not _there(out):
        inputs = _example(work, net)
        upop = _upop(work, groups)
        _fit(work, SEARCH, work.recipe.search, net, pruner=upop)
        masked = _outputs(net, inputs)
        slim = upop.shrink()
        _check_same(masked, _outputs(slim, inputs))
        if is_writer():
            kept = {name: mask.nonzero().squeeze(1).tolist() for name, mask in upop.masks().items()}
            found = {"reached": upop.sparsity, "widths": upop.widths(), "kept": kept}
            write_json(work.folder / SEARCH / CHOSEN, {"asked": asdict(work.recipe.slim), **found})
        _hand_over(work, slim, out)
    found_net = from_pretrained(out).to(best_device())
    widths = getattr(found_net.config, "slim_dims", {})
    return found_net, {name: {**of, "width": int(widths.get(name, of["size"]))} for name, of in facts.items()}


def _groups(work: Work, net: nn.Module) -> Groups:
    return find_groups(net, _example(work, net))


def _example(work: Work, net: nn.Module) -> dict[str, Tensor]:
    """What the net takes for one example, where it is."""
    device = next(net.parameters()).device
    return {name: value.to(device) for name, value in work.task.example().items()}


def _upop(work: Work, groups: Groups) -> UPop:
    slim = work.recipe.slim
    return UPop(
        groups,
        ratio=slim.ratio,
        steps=work.recipe.search.epochs * len(work.task.batches),
        budget=slim.budget,
        method=METHODS[slim.method],
        interval=slim.interval,
        multiple=slim.multiple,
        remove=slim.remove,
    )


def _hand_over(work: Work, net: nn.Module, out: Path) -> None:
    if is_writer():
        work.task.save(net, out)
    barrier()


def _there(folder: Path) -> bool:
    """Whether a stage has left its folder, as the writer sees it."""
    return broadcast((folder / "config.json").is_file())


def _scores(task: Task, net: nn.Module) -> dict[str, float]:
    with evaluated(net), torch.no_grad():
        return task.validate(net)


def _outputs(net: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """All tensors of numbers that the net says of the inputs."""
    with evaluated(net), torch.no_grad():
        said = net(**inputs)
    return [leaf.double().cpu() for leaf in _leaves(said) if leaf.is_floating_point() and leaf.numel()]


def _leaves(said: Any) -> list[Tensor]:
    if isinstance(said, Tensor):
        return [said]
    values = said.values() if isinstance(said, Mapping) else said if isinstance(said, tuple | list) else ()
    return [leaf for value in values for leaf in _leaves(value)]


def _check_same(masked: list[Tensor], shrunk: list[Tensor]) -> None:
    """TrainingError where shrinking has changed what the net says, tensor by tensor."""
    for before, after in zip(masked, shrunk, strict=True):
        error, scale = float((before - after).abs().max()), max(1.0, float(before.abs().max()))
        if not error <= LEAST_ERROR * scale:
            raise TrainingError(
                f"the shrunk model differs from the masked one by {error:.2g} of {scale:.2g}; an adapter of "
                "laconic.compress.structured does not fit this model: report it, or leave those modules out"
            )


def _facts(work: Work, net: nn.Module) -> dict[str, Any]:
    """Scores and costs of the net as it stands; the writer's, which are reported."""
    if not is_writer():
        return {}
    prunable = sum(group.parameters * group.size for group in find_groups(net))
    return {"scores": _scores(work.task, net), **asdict(count(net, _example(work, net))), "prunable": prunable}


def _earlier(work: Work) -> dict[str, float]:
    """Seconds of the stages that were over before this sitting."""
    files = {stage: work.folder / stage / SECONDS for stage in STAGES}
    return {stage: float(json.loads(path.read_text())) for stage, path in files.items() if path.is_file()}


def _conclude(work: Work, net: nn.Module, dense: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    work.watch.stage("scoring", 0, 1)
    now = _facts(work, net)
    work.seconds["scoring"] = round(time.perf_counter() - started, 1)
    result = {
        "task": work.recipe.task,
        "method": work.recipe.slim.method,
        "ratio": work.recipe.slim.ratio if groups else 0.0,
        "budget": work.recipe.slim.budget if groups else "",
        "selection": work.task.selection,
        "scores": now["scores"],
        "dense": dense["scores"],
        "baselines": dict(work.task.baselines()),
        "parameters": {
            "dense": dense["parameters"],
            "now": now["parameters"],
            "prunable": dense["prunable"],
            "left": now["prunable"],
        },
        "macs": {"dense": dense["macs"], "now": now["macs"]},
        "widths": dict(groups),
        "seconds": {**_earlier(work), **work.seconds},
        "skipped": [skipped.reason for skipped in work.task.skipped],
    }
    write_json(work.folder / RESULT, result)
    for stage in STAGES:
        for checkpoint in (work.folder / stage).glob("*.pt"):  # the Hugging Face folders replace them
            checkpoint.unlink(missing_ok=True)
    return result
