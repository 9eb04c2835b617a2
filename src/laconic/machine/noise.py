"""Uniform noise at a quarter of the usual price: four 16-bit draws to each 64-bit word of a generator.

On a CPU the generator is what masks and dropout wait for. A probability is thereby resolved to 1 / 65536.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LEVELS = 65536


def words_for(shape: Sequence[int]) -> int:
    """Number of random words that the noise of a shape takes."""
    return -(-torch.Size(shape).numel() // 4)


def noise16(words: Tensor, shape: Sequence[int]) -> Tensor:
    """int16 tensor of a shape, every value from -32768 to 32767 equally likely, made of random int64 words."""
    return words.view(torch.int16)[: torch.Size(shape).numel()].view(shape)
