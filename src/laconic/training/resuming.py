"""What a training goes on from: whether a checkpoint is sound and its own, and the log as far as that goes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.errors import TrainingError
from laconic.machine.files import write_text


def check_origin(path: Path, held: object, mine: Mapping[str, str]) -> None:
    """TrainingError where the checkpoint at `path` is of other words or data; older ones do not tell.

    Args:
        held: digests by name, as the checkpoint has them.
        mine: those of this training.
    """
    if not isinstance(held, dict):
        raise TrainingError(f"{path}: damaged (origin is no table); restore it, or give --out another folder")
    for name, digest in mine.items():
        if held.get(name, digest) != digest:
            raise TrainingError(
                f"{path}: was written with another {name}; restore the data of then, or give --out another folder"
            )


def cut_log(path: Path, step: int) -> None:
    """Drops the lines after a step, and what a kill has cut short; TrainingError for a line that is none of a log."""
    if not path.exists():
        return
    kept = []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line.decode("utf8"))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                continue  # cut short by a kill
            raise TrainingError(
                f"{path}: line {number} is none of a training log ({type(error).__name__}); delete that line, "
                "or the file, which is a record only, and continue with --resume"
            ) from None
    write_text(path, "".join(kept))


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """ValueError where what an optimizer keeps of a weight is neither a number nor of the weight's shape."""
    for weight, held in optimizer.state.items():
        for name, value in held.items():
            if not isinstance(value, Tensor) or (value.ndim and value.shape != weight.shape):
                raise ValueError(f"{name} of a weight of shape {tuple(weight.shape)}")


def counts_of(state: Mapping[str, Any], steps: int) -> tuple[int, float, dict[str, float], dict[str, float]]:
    """Step, seconds, best and latest scores of a checkpoint; TypeError or ValueError where they are anything else."""
    step, seconds, best, scores = (state[key] for key in ("step", "seconds", "best", "scores"))
    if type(step) is not int or not isinstance(seconds, int | float):
        raise TypeError("step or seconds is no number")
    if not 0 <= step <= steps or not 0 <= seconds < math.inf:
        raise ValueError(f"step {step} of {steps} after {seconds} seconds")
    for held in (best, scores):
        if not isinstance(held, dict) or not all(
            isinstance(key, str) and isinstance(value, int | float) for key, value in held.items()
        ):
            raise TypeError("scores are no table of numbers")
    if best and type(best.get("step")) is not int:
        raise TypeError("the best scores have no step")
    return step, float(seconds), best, scores
