"""Dropout that costs little on a CPU, where PyTorch's own draws one slow number for each element.

Knows nothing of layers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 65536


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """F.dropout; on a CPU the noise is drawn four 16-bit numbers to a 64-bit word, so p is resolved to 1 / 65536."""
    if not training or p == 0 or x.device.type != "cpu":
        return F.dropout(x, p, training)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return x * keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
