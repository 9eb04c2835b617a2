"""Weights of an encoder that no word depends on.

A finer grid is taken from the middle of an encoder, and what follows makes the pooled feature alone, which the Object
Relation Transformer and AoANet do not read. Files that are to be small hold zeros there, which cost nothing.
"""

import copy
from collections.abc import Sequence

import torch

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.spec.encoders import ENCODERS, detects
from laconic.spec.model import REGIONS
from laconic.spec.pixels import LEAST_SIDE


def unread(captioner: ImageCaptioner) -> list[str]:
    """Names of those weights."""
    config = captioner.config.encoder
    if captioner.reads_pooled or config.name == REGIONS or detects(config):
        return []
    if config.stride == max(ENCODERS[config.name].grid):
        return []
    encoder = copy.deepcopy(captioner.encoder).cpu().float().eval().requires_grad_()
    names, weights = zip(*encoder.named_parameters(), strict=True)
    with torch.enable_grad():
        grid = encoder(torch.zeros(1, 3, LEAST_SIDE, LEAST_SIDE)).grid
        found = torch.autograd.grad(grid.sum(), weights, allow_unused=True)
    return [f"encoder.{name}" for name, gradient in zip(names, found, strict=True) if gradient is None]


@torch.no_grad()
def clear(captioner: ImageCaptioner, names: Sequence[str]) -> None:
    """Sets what `unread` names to zero, in place. What the captioner says stays the same to the last bit."""
    for name in names:
        captioner.get_parameter(name).zero_()


def lacks_pooled(captioner: ImageCaptioner) -> bool:
    """Whether they are zero already, so that the encoder has no pooled feature for another captioner."""
    names = unread(captioner)
    return bool(names) and not any(captioner.get_parameter(name).any() for name in names)
