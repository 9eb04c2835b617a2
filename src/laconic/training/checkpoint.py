"""Checkpoints of a training run: written atomically, read without trusting them.

A checkpoint is a dict of tensors and plain values in torch's zip format, read with `weights_only`. A full disk or a
kill leaves the previous file as it was. Knows nothing of what is inside.
"""

import warnings
from pathlib import Path
from typing import Any

import torch

from laconic.errors import FormatError, TrainingError
from laconic.machine.files import atomically

FORMAT = 1


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes beside the target, then replaces it; TrainingError where that fails, with the old file intact."""
    try:
        with atomically(path) as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        kept = "the previous checkpoint is intact" if path.exists() else "nothing was kept"
        raise TrainingError(
            f"{path}: checkpoint cannot be written ({error}); {kept}; free the disk and continue with --resume"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU; FormatError where it is damaged or of another format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about foreign pickles before it refuses them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such checkpoint") from None
    except Exception as error:  # unpickling damaged bytes raises anything: IndexError, struct.error ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path}: damaged checkpoint ({reason}); move it away and train again, or restore it from a backup"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FormatError(f"{path}: not a checkpoint of this version of laconic")
    return state
