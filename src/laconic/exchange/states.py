"""State dicts of checkpoints by others, read without trusting them: no code of the file runs, limits come first."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.errors import FormatError
from laconic.training.checkpoint import load_tensors

SAFETENSORS = ".safetensors"
INSIDE = ("model", "state_dict")  # keys under which training programs keep the weights


def read_state(path: Path, most_bytes: int) -> dict[str, Tensor]:
    """A state dict as it lies in a file of torch.save or of safetensors, sparse tensors still sparse.

    The state may stand under "model" or "state_dict", beside what a training program keeps with it.

    Raises:
        FormatError: no such file, damaged bytes, anything else than tensors, or more than `most_bytes`.
    """
    if not path.is_file():
        raise FormatError(f"{path}: no such file; give a checkpoint that torch.save or safetensors has written")
    state = _load(path, most_bytes)
    if isinstance(state, dict):
        inside = next((state[key] for key in INSIDE if isinstance(state.get(key), Mapping)), state)
        state = dict(inside)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FormatError(f"{path}: holds something other than named tensors")
    for name, tensor in state.items():
        _check(path, str(name), tensor)
    return {str(name): tensor for name, tensor in state.items()}


def _load(path: Path, most_bytes: int) -> Any:
    try:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import load_file

            if path.stat().st_size > most_bytes:
                raise ValueError(f"{path.stat().st_size:,} bytes, the limit is {most_bytes:,}")
            return load_file(path)
        # a namespace holds the options of the program that trained; it is data, and is thrown away with the rest
        with torch.sparse.check_sparse_tensor_invariants(False), torch.serialization.safe_globals([argparse.Namespace]):
            return load_tensors(path, most_bytes)
    except pickle.UnpicklingError as error:
        raise FormatError(f"{path}: holds more than tensors, or is damaged; laconic runs nothing of it") from error
    except Exception as error:  # hostile bytes raise anything: UnpicklingError, KeyError, RuntimeError ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: not a sound PyTorch checkpoint ({reason:.200}); copy it again") from error


def _check(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.is_nested or tensor.is_meta:
        raise FormatError(f"{path}: {name!r:.99} is no tensor of numbers in one array")
    if tensor.layout not in (torch.strided, torch.sparse_coo):
        raise FormatError(f"{path}: {name!r:.99} is stored as {tensor.layout}; only dense and COO are read")
    if tensor.is_sparse and tensor._nnz() > tensor.numel():  # one stored number may claim to be any number of them
        raise FormatError(f"{path}: {name!r:.99} has more entries than places")
