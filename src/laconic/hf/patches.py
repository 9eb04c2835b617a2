"""Patch embeddings of BLIP's vision tower for images of other than three channels, which transformers does not make."""

from typing import Any

from torch import nn


def fit_channels(model: nn.Module) -> nn.Module:
    """Gives BLIP's vision tower a patch embedding of `vision_config.num_channels`, where the config says so.

    Such "images" are grids of features of another encoder (laconic.tasks.images). Others are left as they are.
    """
    config: Any = getattr(getattr(model, "config", None), "vision_config", None)
    channels = getattr(config, "num_channels", 3)
    embeddings: Any = getattr(getattr(model, "vision_model", None), "embeddings", None)
    old = getattr(embeddings, "patch_embedding", None)
    if isinstance(old, nn.Conv2d) and old.in_channels != channels:
        side = old.kernel_size[0]
        embeddings.patch_embedding = nn.Conv2d(channels, old.out_channels, side, side)
    return model
