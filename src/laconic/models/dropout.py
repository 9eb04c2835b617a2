"""Dropout that costs little on a CPU, where PyTorch's own draws one slow number for each element.

Knows nothing of layers.
"""

import torch.nn.functional as F
from torch import Tensor

from laconic.noise import LEVELS, noise16


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """F.dropout; on a CPU with the noise of laconic.noise, so p is resolved to 1 / 65536."""
    if not training or p == 0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    keep = noise16(x.shape, x.device) >= dropped - LEVELS // 2
    return x * keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
