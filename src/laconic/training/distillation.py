"""Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531): word by word, and of what the encoder sees.

A trained captioner, the teacher, reads the same captions of the same images, and the student learns how likely the
teacher finds each word of the vocabulary, beside which word came. Most often the teacher is the dense captioner and the
student its pruned form; several teachers are an ensemble. An encoder that is pruned or tuned can also learn to give the
teacher's grid (Romero et al. 2015, arXiv 1412.6550). Captions that a teacher writes are in laconic.training.taught.
Knows nothing of the training loop, into which it enters as an Objective.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.captioner.ensemble import Ensemble
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load
from laconic.captioner.unread import unread
from laconic.config import expand
from laconic.errors import ConfigError
from laconic.machine.distributed import unwrapped
from laconic.models.layers import fold_batch_norm
from laconic.spec.encoders import cells_of, channels_of
from laconic.spec.model import REGIONS
from laconic.training.batches import Batch
from laconic.training.given import Loss
from laconic.training.loop import cross_entropy
from laconic.training.settings import Distillation

BY_CAPTIONS = "or have it teach by its captions alone: weight = 0 and distillation.sequences"
SAME = 0.01  # relative difference of encoder weights that still makes the same features: rounding to half precision


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's words from the teacher's, times the temperature's square.

    The square keeps gradients as large as those of the cross-entropy (Hinton et al., section 2).

    Args:
        logits: the student's, (tokens, vocabulary).
        taught: the teacher's, of the same shape.
    """
    student = F.log_softmax(logits.float() / temperature, -1)
    teacher = F.log_softmax(taught.float() / temperature, -1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def feature_loss(grid: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference of two grids (images, positions, channels), relative to the teacher's mean square: 1
    where the student sees nothing, whatever the encoder's scale."""
    return F.mse_loss(grid.float(), taught.float()) / taught.float().square().mean().clamp(min=1e-12)


class KnowledgeDistillation:
    """The objective: (1 - weight) * cross-entropy + weight * distillation_loss + features * feature_loss.

    Args:
        teacher: an ImageCaptioner, an Ensemble, or a captioner alone, which reads features.
    """

    def __init__(self, options: Distillation, teacher: nn.Module, smoothing: float = 0.0) -> None:
        self.options, self.teacher, self.smoothing = options, teacher.eval().requires_grad_(False), smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Teacher and student read the same captions, the student with dropout and masks."""
        options, teacher = self.options, self.teacher.to(batch.tokens.device)
        inputs, seen = batch.inputs, None
        with torch.no_grad():
            if options.features:
                sees = members_of(cast(ImageCaptioner | Ensemble, teacher))[0]
                seen = sees.features(inputs)
                inputs = seen if sees is teacher else inputs
            taught = teacher(inputs, batch.tokens) if options.weight else None
        with _grids_of(model, seen is not None) as grids:
            logits = model(batch.inputs, batch.tokens)
        written = cross_entropy(logits, batch.tokens, self.smoothing)
        mean, facts = (1 - options.weight) * written, {"cross_entropy": written.item()}
        if taught is not None:
            divergence = distillation_loss(logits, taught, options.temperature)
            mean, facts["divergence"] = mean + options.weight * divergence, divergence.item()
        if seen is not None:
            apart = feature_loss(grids[0], seen.grid)
            mean, facts["features"] = mean + options.features * apart, apart.item()
        return Loss(mean, len(logits), facts)


@contextmanager
def _grids_of(model: nn.Module, wanted: bool) -> Iterator[list[Tensor]]:
    """The grids that the captioner's encoder gives meanwhile; a hook sees them inside DistributedDataParallel, too."""
    grids: list[Tensor] = []
    if not wanted:
        yield grids
        return
    encoder = unwrapped(model).get_submodule("encoder")
    handle = encoder.register_forward_hook(lambda _module, _inputs, features: grids.append(features.grid))
    try:
        yield grids
    finally:
        handle.remove()


def load_teacher(
    options: Distillation, student: ImageCaptioner, *, reads_features: bool
) -> ImageCaptioner | Ensemble | None:
    """The captioners that the options name, where they can teach this student; None where they name none.

    Args:
        reads_features: whether all are given features of the student's encoder, which stays as it is; else each has
            its own encoder look at the pixels. Teachers that only write captions do so in any case.

    Raises:
        ConfigError: where one has other words; where it is to teach more than captions and reads images of another
            size, or would be given features that are not those of its own encoder; or where there are no grids of the
            same form to compare.
    """
    if not options.teacher:
        return None
    files = (options.teacher, *options.ensemble)
    teachers = [_load(expand(file), student) for file in files]
    if not look_themselves(options, teachers):
        for file, teacher in zip(files, teachers, strict=True):
            _check_sight(file, teacher, student, reads_features=reads_features)
    if options.features:
        if reads_features:
            raise ConfigError(
                "distillation.features compares encoders, and the recipe's stays as it is; leave it out, or train the "
                "encoder with training.encoder_learning_rate"
            )
        held, asked = (
            (channels_of(one.config.encoder).grid, cells_of(one.config.encoder)) for one in (teachers[0], student)
        )
        if held != asked:
            raise ConfigError(
                f"{options.teacher}: its encoder gives {held[1]} cells of {held[0]} channels and the recipe's "
                f"{asked[1]} of {asked[0]}; leave distillation.features out"
            )
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers)


def look_themselves(options: Distillation, teachers: Sequence[ImageCaptioner]) -> bool:
    """Whether teachers are given photos, whatever their student is given: those that only write captions, which then
    may have any encoder. A teacher that reads regions of a detector is given what its student is given."""
    return options.captions_alone and all(one.config.encoder.name != REGIONS for one in teachers)


def members_of(teacher: ImageCaptioner | Ensemble) -> list[ImageCaptioner]:
    """The captioners of an ensemble, or the one that there is."""
    return list(cast(Sequence[ImageCaptioner], teacher.members)) if isinstance(teacher, Ensemble) else [teacher]


def _load(path: Path, student: ImageCaptioner) -> ImageCaptioner:
    teacher = load(path)
    if teacher.vocabulary != student.vocabulary:
        raise ConfigError(f"{path}: the teacher has another vocabulary; give one trained on the same captions")
    return teacher


def _check_sight(path: str, teacher: ImageCaptioner, student: ImageCaptioner, *, reads_features: bool) -> None:
    """ConfigError where a teacher cannot see what its student is given."""
    # packing folds batch norm
    held, asked = (replace(captioner.config.encoder, norm=False) for captioner in (teacher, student))
    if held != asked if reads_features else held.size != asked.size:
        raise ConfigError(
            f"{path}: the teacher's encoder is {held}, the recipe asks for {asked}; give both the same, {BY_CAPTIONS}"
        )
    if reads_features and not _same_weights(teacher, _folded(student.encoder)):
        raise ConfigError(
            f"{path}: the teacher's encoder has other weights than the recipe's frozen one, whose features it would "
            f"read; give a teacher with that same frozen encoder, packed as exact or half, {BY_CAPTIONS}"
        )


def _folded(encoder: nn.Module) -> nn.Module:
    """The encoder as it is packed."""
    packed = copy.deepcopy(encoder)
    fold_batch_norm(packed)
    return packed


def _same_weights(teacher: ImageCaptioner, other: nn.Module) -> bool:
    """Whether an encoder of the same form gives the teacher what its own gives it, up to rounding."""
    mine, theirs = teacher.encoder.state_dict(), other.state_dict()
    unread_ones = {name.removeprefix("encoder.") for name in unread(teacher)}  # of which a packed file may hold none
    return mine.keys() == theirs.keys() and all(
        (tensor.cpu().float() - theirs[name].cpu().float()).norm() <= SAME * theirs[name].float().norm().cpu()
        for name, tensor in mine.items()
        if name not in unread_ones
    )
