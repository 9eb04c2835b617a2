"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): images and labels of a batch mixed with one another."""

import numpy as np
import torch
from torch import Tensor

Mixed = tuple[Tensor, Tensor]


def mixup(images: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """Each image and target becomes share x itself + (1 - share) x its opposite in the batch, share ~ Beta(a, a).

    Args:
        images: (n, ...).
        targets: (n, classes), shares of classes.
    """
    share = float(rng.beta(alpha, alpha))
    return share * images + (1 - share) * images.flip(0), share * targets + (1 - share) * targets.flip(0)


def cutmix(images: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> Mixed:
    """A box of each image is that of its opposite, and the targets share as the areas do."""
    height, width = images.shape[2:]
    side = np.sqrt(1 - rng.beta(alpha, alpha))
    middle = rng.random(2) * (height, width)
    half = side * np.array([height, width]) / 2
    top, left = np.clip(np.round(middle - half), 0, (height, width)).astype(int)
    bottom, right = np.clip(np.round(middle + half), 0, (height, width)).astype(int)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, share * targets + (1 - share) * targets.flip(0)


def mix(images: Tensor, targets: Tensor, mixup_by: float, cutmix_by: float, rng: np.random.Generator) -> Mixed:
    """Either of the two, at random where both are asked for; alpha 0 is none."""
    if mixup_by and (not cutmix_by or rng.random() < 0.5):
        return mixup(images, targets, mixup_by, rng)
    if cutmix_by:
        return cutmix(images, targets, cutmix_by, rng)
    return images, targets


def one_hot(labels: np.ndarray, classes: int) -> Tensor:
    """float32 (n, classes)."""
    return torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
