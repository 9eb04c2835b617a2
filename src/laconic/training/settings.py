"""What a training is told: how long, how fast, in which batches, by which objective; and the schedules of the rate.

Plain values, read and compared without torch.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

from laconic.decode.search import MOST_BEAMS, check_length
from laconic.errors import ConfigError

MOST_SEEDS = 2**64  # that a random generator of torch tells apart


@dataclass(frozen=True)
class Training:
    """How long, how fast and in which batches the captioner learns.

    Attributes:
        epochs: how many times the training passes over all training images.
        batch: images per step, over all processes together.
        captions: captions of each image that a step learns from, drawn anew in each epoch; 0 for all of them.
        learning_rate: of the captioner, with the optimizer Adam; reached after the warm-up.
        schedule: "cosine" lets the learning rates fall to zero along a cosine, "constant" keeps them.
        encoder_learning_rate: of the encoder; 0 freezes it, so that its features are computed once and cached.
        warmup: steps over which the learning rates rise linearly to their full value.
        weight_decay: share of the weights, times the learning rate, that each step takes away (AdamW).
        clip: gradients are scaled down to this norm where theirs is larger.
        average: decay of an exponential moving average of the weights, such as 0.995 for the last 200 steps or so; the
            average is scored and shipped in place of the latest weights. 0 for none.
        label_smoothing: share of the probability that the loss spreads over all words instead of the right one.
        precision: "bf16" computes matrix products in bfloat16, weights stay float32. It is faster on GPUs and on
            processors with instructions for bfloat16 (AVX-512 or AMX), and many times slower on others.
        mirror: flips training images left to right at random.
        seed: of initial weights, the order of images, and dropout.
        checkpoint_minutes: a stop loses at most so many minutes; a checkpoint is made after each epoch anyway.
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
    average: float = 0.0
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
        for name in ("learning_rate", "encoder_learning_rate"):
            if getattr(self, name) * self.weight_decay >= 1:  # a step would leave less than nothing of the weights
                raise ConfigError(
                    f"training: weight_decay = {self.weight_decay} takes {name} x weight_decay = "
                    f"{getattr(self, name) * self.weight_decay:g} of the weights at each step; give less"
                )
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"training: label_smoothing = {self.label_smoothing}; give 0 <= label_smoothing < 1")
        if not 0 <= self.average < 1:
            raise ConfigError(f"training: average = {self.average}; give 0 <= average < 1")
        if not self.clip > 0:
            raise ConfigError(f"training: clip = {self.clip}; give more than 0")


@dataclass(frozen=True)
class Scst:
    """Options of self-critical training (SCST), for --objective scst.

    Attributes:
        samples: captions drawn per image and step.
        sampling: "random" draws from the captioner's distribution, "beam" takes the hypotheses of a beam search.
        temperature: of "random" samples, drawn from softmax(logits / temperature), whose expected reward is then what
            grows. Below 1, likely words are drawn more often, which a captioner trained with label smoothing needs.
        baseline: "others" compares a sample with the mean of the image's other samples, "greedy" with the reward of
            the greedy caption (the paper's).
        cider: weight of CIDEr-D, a number from 0 to 10, in the reward.
        bleu: weight of the sentence's BLEU-4, a number from 0 to 1, in the reward.
        eos_in_reward: counts the end of the sentence as a word of the reward. The published reward does not, and
            learns captions that break off.
        max_length: words that a sample may have at most, its end included; at most 500.
    """

    samples: int = 5
    sampling: Literal["random", "beam"] = "random"
    temperature: float = 1.0
    baseline: Literal["others", "greedy"] = "others"
    cider: float = 1.0
    bleu: float = 1.0
    eos_in_reward: bool = True
    max_length: int = 20

    def __post_init__(self) -> None:
        least = 2 if self.baseline == "others" or self.sampling == "beam" else 1
        if self.samples < least:
            raise ConfigError(f"scst: samples = {self.samples}; give at least {least}")
        if self.samples > MOST_BEAMS:
            raise ConfigError(f"scst: samples = {self.samples}; give at most {MOST_BEAMS}")
        check_length("scst: max_length", self.max_length)
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"scst: temperature = {self.temperature}; give more than 0")
        if self.sampling == "beam" and self.temperature != 1:
            raise ConfigError(f"scst: temperature = {self.temperature} is for random samples; leave it out for a beam")
        if min(self.cider, self.bleu) < 0 or self.cider + self.bleu == 0:
            raise ConfigError(f"scst: cider = {self.cider}, bleu = {self.bleu}; give weights of 0 or more, not both 0")


Choice = Literal["best", "nearest"]


@dataclass(frozen=True)
class Distillation:
    """Options of knowledge distillation: a trained captioner teaches the one being trained.

    Attributes:
        teacher: a packed captioner with the same vocabulary, most often the dense one; empty for no teacher.
        weight: share of the teacher's words in the loss; the captions themselves have the rest. 0 where only its
            sequences or features are to teach.
        temperature: divides the logits of teacher and student; above 1, unlikely words count for more.
        ensemble: further teachers; all of them together teach the mean of their probabilities.
        sequences: captions that the teacher writes for each training image before the training, which are learned
            like the image's own.
        choice: of the teacher's beam search, "best" takes the likeliest captions, "nearest" those nearest to the
            image's own.
        alone: the teacher's captions take the place of the images' own.
        features: weight of the squared difference between the grids that the encoders of student and teacher see,
            relative to the teacher's.
    """

    teacher: str = ""
    weight: float = 0.5
    temperature: float = 1.0
    ensemble: tuple[str, ...] = ()
    sequences: int = 0
    choice: Choice = "best"
    alone: bool = False
    features: float = 0.0

    def __post_init__(self) -> None:
        if not self.teacher:
            for option in fields(self):
                if getattr(self, option.name) != option.default:
                    raise ConfigError(f"distillation: {option.name} is for a teacher: give its packed file as teacher")
            return
        if not 0 <= self.weight <= 1 or not (self.weight or self.sequences or self.features):
            raise ConfigError(
                f"distillation: weight = {self.weight}; give 0 < weight <= 1, or 0 beside sequences or features"
            )
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"distillation: temperature = {self.temperature}; give more than 0")
        if not 0 <= self.sequences <= MOST_BEAMS:
            raise ConfigError(f"distillation: sequences = {self.sequences}; give 0 to {MOST_BEAMS}")
        if not self.sequences and (self.choice != "best" or self.alone):
            raise ConfigError("distillation: choice and alone are for captions of the teacher: give sequences")
        if not 0 <= self.features < math.inf:
            raise ConfigError(f"distillation: features = {self.features}; give at least 0")

    @property
    def captions_alone(self) -> bool:
        """Whether the teacher is done once it has written its captions, and so may see with any encoder."""
        return bool(self.sequences) and not self.weight and not self.features


def constant(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, then 1."""
    return min(1.0, (step + 1) / max(1, warmup))


def cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, and half a cosine down to zero."""
    return constant(step, steps, warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


SCHEDULES = {"cosine": cosine, "constant": constant}
