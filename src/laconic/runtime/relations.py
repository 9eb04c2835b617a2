"""How boxes lie as seen from each other, in numpy: laconic.models.box_geometry (Herdade et al. 2019, eq. 6).

Pairs are laid out with the box that is looked at first: column j P + i is how box i sees box j. So attention, which is
computed for several i at a time, reads its bias in order.
"""

import math

import numpy as np
from numpy.typing import NDArray

EMBEDDING = 64  # numbers per pair: 4 measures x 8 frequencies x (sine, cosine)
FREQUENCIES = 8
SCALE, RANGE = np.float32(100), np.float32(1000)  # of the highest frequency, and from it to below the lowest
CLOSEST = np.float32(1e-3)  # shorter sides and distances are all alike
LEAST_RELATION = np.float32(1e-6)

Floats = NDArray[np.float32]


def cell_boxes(cells: int) -> Floats:
    """Boxes (cells, 4) of the cells of a square map, row by row, relative to the image."""
    side = math.isqrt(cells)
    rows, columns = (numbers.reshape(-1) for numbers in np.indices((side, side)))
    return np.stack([columns, rows, columns + 1, rows + 1], -1).astype(np.float32) / np.float32(side)


def embed_pairs(boxes: Floats, plus_one: bool) -> Floats:
    """Boxes (P, 4), x1, y1, x2, y2 -> (EMBEDDING, P * P): sines, then cosines, of each measure at each frequency."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2)
    side = np.maximum(boxes[:, 2:] - boxes[:, :2] + np.float32(plus_one), CLOSEST)
    distance = np.abs(centre - centre[:, None]) / side
    measures = np.log(np.concatenate([np.maximum(distance, CLOSEST), side / side[:, None]], -1))
    powers = np.arange(FREQUENCIES, dtype=np.float32) / np.float32(FREQUENCIES)
    angles = (SCALE * measures[..., None] * RANGE**-powers).reshape(-1, EMBEDDING // 2).T
    return np.concatenate([np.sin(angles), np.cos(angles)])


def log_relation(relation: Floats) -> Floats:
    """A relation as a bias on attention logits."""
    return np.log(np.maximum(relation, LEAST_RELATION))
