"""Uniform noise at a quarter of the usual price: four 16-bit draws to each 64-bit word of a generator.

On a CPU the generator is what masks and dropout wait for. A probability is thereby resolved to 1 / 65536.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 65536


def words_for(shape: Sequence[int]) -> int:
    """Number of random words that the noise of a shape takes."""
    return -(-math.prod(shape) // 4)


def noise16(words: "Tensor", shape: Sequence[int]) -> "Tensor":
    """int16 tensor of a shape, every value from -32768 to 32767 equally likely, made of random int64 words."""
    import torch

    return words.view(torch.int16)[: math.prod(shape)].view(shape)
