"""What a training is told: how long, how fast, in which batches; and the schedules of the learning rate."""

import math
from dataclasses import dataclass
from typing import Literal

from laconic.errors import ConfigError

MOST_SEEDS = 2**64  # that a random generator of torch tells apart


@dataclass(frozen=True)
class Training:
    """Settings of a run.

    Attributes:
        epochs: passes over the training images.
        batch: images per step, over all processes together.
        captions: of each image at a step, drawn anew in each epoch; 0 for all of them.
        learning_rate: of Adam, after a linear warm-up.
        schedule: "cosine" lets the learning rates fall to zero along a cosine, "constant" keeps them.
        encoder_learning_rate: 0 freezes the encoder and caches its features.
        warmup: steps of linear warm-up.
        weight_decay: decoupled (AdamW).
        clip: bound of the gradient's norm.
        label_smoothing: of the cross-entropy.
        precision: "bf16" computes matrix products in bfloat16 under autocast; weights stay float32.
        mirror: flips training images left to right at random.
        seed: of initial weights, order and dropout.
        checkpoint_minutes: at most so long between two checkpoints; one is made after each epoch anyway.
    """

    epochs: int = 15
    batch: int = 32
    captions: int = 0
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    encoder_learning_rate: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.0
    clip: float = 5.0
    label_smoothing: float = 0.0
    precision: Literal["float32", "bf16"] = "bf16"
    mirror: bool = True
    seed: int = 1
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        least = {
            "epochs": 1,
            "batch": 1,
            "learning_rate": 0,
            "encoder_learning_rate": 0,
            "warmup": 0,
            "seed": 0,
            "captions": 0,
        }
        least |= {"weight_decay": 0, "checkpoint_minutes": 0}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < math.inf:
                raise ConfigError(f"training: {name} = {getattr(self, name)}; give at least {bound}")
        if self.seed >= MOST_SEEDS:
            raise ConfigError(f"training: seed = {self.seed}; give less than {MOST_SEEDS:,}")
        if self.learning_rate == self.encoder_learning_rate == 0:
            raise ConfigError("training: learning_rate = 0 trains nothing; give more than 0")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"training: label_smoothing = {self.label_smoothing}; give 0 <= label_smoothing < 1")
        if not self.clip > 0:
            raise ConfigError(f"training: clip = {self.clip}; give more than 0")


def constant(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, then 1."""
    return min(1.0, (step + 1) / max(1, warmup))


def cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, and half a cosine down to zero."""
    return constant(step, steps, warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


SCHEDULES = {"cosine": cosine, "constant": constant}
