"""Dropout that costs little on a CPU, where PyTorch's own draws one slow number for each element.

Knows nothing of layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.machine.noise import LEVELS, noise16, words_for


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """F.dropout; on a CPU with the noise of laconic.machine.noise, so p is resolved to 1 / 65536."""
    if not training or p == 0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    words = torch.empty(words_for(x.shape), dtype=torch.int64).random_(-(2**63), None)
    keep = noise16(words, x.shape) >= dropped - LEVELS // 2
    return x * keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
