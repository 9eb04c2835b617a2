"""What a detector found, as tensors: boxes from its distributions, the best of them, features within them.

All functions are pure; gradients pass through boxes and features, not through the choice. Boxes are x1, y1, x2, y2
relative to the image, (images, n, 4).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.spec.detectors import BINS, CLASSES, LEVELS

OVERLAP = 0.6  # intersection over union from which the worse of two boxes of a class is one too many
CANDIDATES = 300  # cells of an image whose boxes are compared; PicoDet looks at 3,598 of 416 x 416 pixels
LEAST_SIDE = 1e-3  # of a box


def decode(levels: Sequence[Tensor], centre: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Boxes (images, cells, 4) and class probabilities (images, cells, CLASSES) of all cells of all levels.

    levels: for each of LEVELS (images, CLASSES + 4 * BINS, rows, columns) logits, see `spec.detectors.Seen`. A distance
    is the mean of a distribution over 0 .. BINS - 1 strides (Li et al. 2020, generalized focal loss, arXiv 2006.04388,
    eq. 3), from the point at `centre` of each cell. Boxes are clipped to the image of height x width pixels.
    """
    boxes, scores = [], []
    for stride, level in zip(LEVELS, levels, strict=True):
        cells = level.float().permute(0, 2, 3, 1)  # (images, rows, columns, logits)
        bins = torch.arange(BINS, dtype=torch.float32, device=level.device)
        shares = cells[..., CLASSES:].unflatten(-1, (4, BINS)).softmax(-1)
        left, top, right, bottom = (shares @ bins * stride).unbind(-1)
        x = (torch.arange(cells.shape[2], device=level.device) + centre) * stride
        y = (torch.arange(cells.shape[1], device=level.device) + centre)[:, None] * stride
        corners = (x - left) / width, (y - top) / height, (x + right) / width, (y + bottom) / height
        boxes.append(torch.stack(corners, -1).flatten(1, 2))
        scores.append(cells[..., :CLASSES].sigmoid().flatten(1, 2))
    return _clipped(torch.cat(boxes, 1)), torch.cat(scores, 1)


def _clipped(boxes: Tensor) -> Tensor:
    first = boxes[..., :2].clamp(0.0, 1 - LEAST_SIDE)
    return torch.cat([first, torch.maximum(boxes[..., 2:].clamp(max=1.0), first + LEAST_SIDE)], -1)


@torch.no_grad()
def best_boxes(boxes: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best boxes: places (images, count) of them, best first, and whether each is (images, count) no duplicate.

    boxes (images, n, 4), scores (images, n, classes) in 0..1, n at least `count`. Each box counts for its likeliest
    class. Greedy non-maximum suppression per class: the best box goes on, and those of its class that overlap with it
    by more than OVERLAP are duplicates. Where no others are left, the best duplicates fill up, so that there are always
    `count`; among equals the first goes first.
    """
    best, classes = scores.max(-1)
    most = min(max(CANDIDATES, 2 * count), best.shape[1])
    best, place = best.topk(most, 1)
    boxes, classes = take(boxes, place), classes.gather(1, place)
    rivals = (overlaps(boxes) > OVERLAP) & (classes[:, :, None] == classes[:, None])
    image = torch.arange(boxes.shape[0], device=boxes.device)
    chosen, fresh = [], []
    for _ in range(count):
        value, at = best.max(1)
        chosen.append(at)
        fresh.append(value >= 0)
        best = torch.where(rivals[image, at] & (best >= 0), best - 2, best)  # below all that are no duplicates
        best = best.scatter(1, at[:, None], -torch.inf)
    return place.gather(1, torch.stack(chosen, 1)), torch.stack(fresh, 1)


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs of an image's boxes, (images, n, n)."""
    one, other = boxes[:, :, None], boxes[:, None]
    sides = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    shared = sides.prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return shared / (area[:, :, None] + area[:, None] - shared)


def mean_within(maps: Tensor, boxes: Tensor) -> Tensor:
    """The mean of maps (images, channels, rows, columns) over each box, (images, n, channels).

    A pixel counts by the share of it that the box covers, so that the mean is continuous in the box's sides (precise
    RoI pooling of one cell: Jiang et al. 2018, IoU-Net, arXiv 1807.11590, eq. 3, of maps that are constant in a pixel).
    """
    columns = _covered(boxes[..., 0], boxes[..., 2], maps.shape[3])
    rows = _covered(boxes[..., 1], boxes[..., 3], maps.shape[2])
    weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # (images, n, pixels)
    return weights @ maps.to(boxes).flatten(2).transpose(1, 2)


def _covered(start: Tensor, stop: Tensor, pixels: int) -> Tensor:
    """Of each pixel of an axis, the share of (start, stop) that lies in it: (..., pixels)."""
    edge = torch.arange(pixels, dtype=start.dtype, device=start.device)
    low, high = start[..., None] * pixels, stop[..., None] * pixels
    inside = (torch.minimum(high, edge + 1) - torch.maximum(low, edge)).clamp(min=0)
    return inside / (high - low)


def take(values: Tensor, place: Tensor) -> Tensor:
    """values (images, n, width) at places (images, m): (images, m, width)."""
    return values.gather(1, place[..., None].expand(-1, -1, values.shape[-1]))
