"""Torch tensors and numpy arrays seen alike: their numbers, and whether two names mean one tensor.

Torch is recognised by what its tensors can do and never imported; files and codecs are not known
here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def numpy_from(tensor: Any) -> NDArray[Any]:
    """A torch tensor or numpy array as a numpy array, without copying where possible.

    bfloat16, which numpy lacks, becomes float32. Raises ValueError for anything else.
    """
    if hasattr(tensor, "detach"):
        try:
            plain = tensor.detach().cpu()
            if "bfloat16" in str(plain.dtype):
                plain = plain.float()
            return np.asarray(plain.numpy())
        except (TypeError, RuntimeError) as error:  # sparse, quantised, without storage
            reason = str(error).partition("\n")[0]
            raise ValueError(f"cannot be turned into an array ({reason})") from None
    if isinstance(tensor, (np.ndarray, np.generic)):
        return np.asarray(tensor)
    raise ValueError(f"is a {type(tensor).__name__}, neither a tensor nor an array")


def find_ties(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Tensors that share memory (place, shape, strides) with an earlier one: name -> its name.

    The mapping must hold the tensors themselves: one that is freed could lend its address to the
    next, and the two would look tied.
    """
    first: dict[object, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = _place(tensor)
        if place is not None and first.setdefault(place, name) != name:
            ties[name] = first[place]
    return ties


def _place(tensor: Any) -> object:
    """Where the elements lie: equal for two names of one tensor; None where nothing is shared."""
    if isinstance(tensor, np.ndarray) and tensor.size:
        return tensor.ctypes.data, tensor.shape, tensor.strides, tensor.dtype
    if hasattr(tensor, "data_ptr") and tensor.numel():
        try:
            layout = tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device)
            pointer = tensor.data_ptr()
        except RuntimeError:  # a sparse tensor has neither; numpy_from has the better message
            return None
        return (pointer, *layout) if pointer else None
    return None
