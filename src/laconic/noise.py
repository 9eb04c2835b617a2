"""Uniform noise at a quarter of the usual price: four 16-bit draws to each 64-bit word of the generator.

On a CPU the generator is what masks and dropout wait for. A probability is thereby resolved to 1 / 65536.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LEVELS = 65536


def noise16(shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """int16 tensor of a shape, every value from -32768 to 32767 equally likely; torch's generator by default."""
    count = torch.Size(shape).numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].view(shape)
