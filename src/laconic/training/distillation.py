"""Word-level knowledge distillation (Hinton et al. 2015, arXiv 1503.02531; Kim and Rush 2016, arXiv 1606.07947).

A trained captioner, the teacher, reads the same captions of the same images, and the student learns how likely the
teacher finds each word of the vocabulary, beside which word came. Most often the teacher is the dense captioner and the
student its pruned form. Knows nothing of the training loop, into which it enters as an Objective.
"""

import copy
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import load
from laconic.errors import ConfigError
from laconic.models.layers import fold_batch_norm
from laconic.training.batches import Batch
from laconic.training.given import Loss
from laconic.training.loop import cross_entropy
from laconic.training.settings import Distillation

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


class KnowledgeDistillation:
    """The objective: (1 - weight) * cross-entropy + weight * distillation_loss."""

    def __init__(self, options: Distillation, teacher: nn.Module, smoothing: float = 0.0) -> None:
        self.options, self.teacher, self.smoothing = options, teacher.eval().requires_grad_(False), smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """Teacher and student read the same captions, the student with dropout and masks."""
        weight, temperature = self.options.weight, self.options.temperature
        with torch.no_grad():
            taught = self.teacher.to(batch.tokens.device)(batch.inputs, batch.tokens)
        logits = model(batch.inputs, batch.tokens)
        divergence = distillation_loss(logits, taught, temperature)
        written = cross_entropy(logits, batch.tokens, self.smoothing)
        facts = {"cross_entropy": written.item(), "divergence": divergence.item()}
        return Loss((1 - weight) * written + weight * divergence, len(logits), facts)


def load_teacher(path: Path, student: ImageCaptioner, *, reads_features: bool) -> ImageCaptioner:
    """The captioner in the file, where it can teach this student.

    Args:
        reads_features: whether both are given features of the student's encoder, which stays as it is; else each has
            its own encoder look at the pixels.

    Raises:
        ConfigError: where it has other words, reads images of another size, or would be given features that are not
            those of its own encoder.
    """
    teacher = load(path)
    if teacher.vocabulary != student.vocabulary:
        raise ConfigError(f"{path}: the teacher has another vocabulary; give one trained on the same captions")
    # packing folds batch norm
    held, asked = (replace(captioner.config.encoder, norm=False) for captioner in (teacher, student))
    if held != asked if reads_features else held.size != asked.size:
        raise ConfigError(f"{path}: the teacher's encoder is {held}, the recipe asks for {asked}; give both the same")
    if reads_features and not _same_weights(teacher.encoder, _folded(student.encoder)):
        raise ConfigError(
            f"{path}: the teacher's encoder has other weights than the recipe's frozen one, whose features it would "
            "read; give a teacher with that same frozen encoder, packed as exact or half"
        )
    return teacher


def _folded(encoder: nn.Module) -> nn.Module:
    """The encoder as it is packed."""
    packed = copy.deepcopy(encoder)
    fold_batch_norm(packed)
    return packed


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two encoders of the same form are the same function up to rounding."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        (tensor.cpu().float() - theirs[name].cpu().float()).norm() <= SAME * theirs[name].float().norm().cpu()
        for name, tensor in mine.items()
    )
