"""Relative geometry of boxes, as relation networks see it (Hu et al. 2018, eq. 5; Herdade et al. 2019, eq. 6).

Pure functions from boxes to numbers. Knows nothing of attention, captioners or where boxes come from.
"""

import torch
from torch import Tensor

EMBEDDING = 64  # numbers per pair of boxes: 4 measures x 8 frequencies x (sine, cosine)
FREQUENCIES = 8
SCALE = 100.0  # of the highest frequency; that of number k is SCALE / RANGE ** (k / 8)
RANGE = 1000.0
CLOSEST = 1e-3  # distances of centres below this share of a side are all alike


def relative_geometry(boxes: Tensor, plus_one: bool = True) -> Tensor:
    """How each box lies as seen from each other one, on logarithmic scales.

    Args:
        boxes: (..., P, 4) x1, y1, x2, y2.
        plus_one: adds 1 to widths and heights, as the published code does: right for boxes in whole pixels, both
            edges included, but applied there to relative ones (0..1), whose sides then lie in 1..2. False measures
            boxes as they are. Sides below CLOSEST count as CLOSEST.

    Returns:
        (..., P, P, 4): log(|dx| / w_i), log(|dy| / h_i), log(w_i / w_j), log(h_i / h_j) at [i, j].
    """
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    side = (boxes[..., 2:] - boxes[..., :2] + int(plus_one)).clamp(min=CLOSEST)
    distance = (centre.unsqueeze(-2) - centre.unsqueeze(-3)).abs() / side.unsqueeze(-2)
    ratio = side.unsqueeze(-2) / side.unsqueeze(-3)
    return torch.cat([distance.clamp(min=CLOSEST), ratio], -1).log()


def embed_geometry(geometry: Tensor) -> Tensor:
    """Sines, then cosines, of each measure at 8 frequencies: (..., 4) -> (..., EMBEDDING), measure by measure."""
    powers = torch.arange(FREQUENCIES, dtype=geometry.dtype, device=geometry.device) / FREQUENCIES
    angles = (SCALE * geometry.unsqueeze(-1) * RANGE**-powers).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)
