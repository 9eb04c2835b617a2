"""Segmenter with its mask Transformer (Strudel et al. 2021, arXiv 2105.05633), which transformers lacks.

    logits = net(pixel_values)          # (n, classes, rows, columns): one decision a patch; upsample it to the image

A ViT encodes the patches. The decoder attends over them together with one token a class; the mask of a class is the
scalar product of its token with every patch, both of unit length.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel, initialization
from transformers.models.vit.modeling_vit import ViTLayer, ViTPreTrainedModel


class SegmenterConfig(ViTConfig):
    """A ViT's configuration, the decoder's number of layers, and `num_labels` classes.

    Attributes:
        decoder_layers: of the mask Transformer; their shape is the encoder's.
    """

    model_type = "segmenter"

    decoder_layers: int = 2
    layer_norm_eps: float = 1e-6


class MaskTransformer(nn.Module):
    """Encoded patches (n, patches, width) -> masks (n, patches, classes)."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        width, eps, classes = config.hidden_size, config.layer_norm_eps, int(config.num_labels or 0)
        self.projection = nn.Linear(width, width)
        self.class_tokens = nn.Parameter(torch.zeros(1, classes, width))
        self.layers = nn.ModuleList([ViTLayer(config) for _ in range(config.decoder_layers)])
        self.layernorm = nn.LayerNorm(width, eps=eps)
        self.patch_projection = nn.Linear(width, width, bias=False)
        self.class_projection = nn.Linear(width, width, bias=False)
        self.mask_norm = nn.LayerNorm(classes)

    def forward(self, patches: Tensor) -> Tensor:
        """The class tokens come after the patches; nothing tells them apart but their values."""
        hidden = torch.cat([self.projection(patches), self.class_tokens.expand(len(patches), -1, -1)], 1)
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.layernorm(hidden)
        count = patches.shape[1]
        seen = F.normalize(self.patch_projection(hidden[:, :count]), dim=-1)
        classes = F.normalize(self.class_projection(hidden[:, count:]), dim=-1)
        masks: Tensor = self.mask_norm(seen @ classes.transpose(1, 2))
        return masks


class Segmenter(ViTPreTrainedModel):
    """Segmenter. Segmenter-S/16 of 150 classes has 26.034 M parameters."""

    config: SegmenterConfig
    config_class = SegmenterConfig
    base_model_prefix = ""  # `vit` is a part beside others, not all but a head

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.decoder = MaskTransformer(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MaskTransformer):
            initialization.trunc_normal_(module.class_tokens, std=0.02)
            for projection in (module.patch_projection, module.class_projection):
                initialization.normal_(projection.weight, std=projection.in_features**-0.5)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (n, classes, rows, columns) on the grid of patches.

        Images of another size than `config.image_size` are taken as well, for several scales: the embeddings of
        positions are interpolated, which transformers does from a square grid only.

        Args:
            pixel_values: (n, channels, height, width), both multiples of the patch.
        """
        height, width = pixel_values.shape[2:]
        size, patch = _pair(self.config.image_size), _pair(self.config.patch_size)
        if height % patch[0] or width % patch[1]:
            raise ValueError(f"images of {height} x {width} are no whole number of patches of {patch[0]} x {patch[1]}")
        other = (height, width) != size
        if other and (size[0] != size[1] or patch[0] != patch[1]):
            raise ValueError(f"images of {height} x {width}, but positions of {size[0]} x {size[1]} are interpolated "
                             "from squares only")  # fmt: skip
        hidden = self.vit(pixel_values, interpolate_pos_encoding=other).last_hidden_state
        masks: Tensor = self.decoder(hidden[:, 1:])
        grid: Tensor = masks.transpose(1, 2).unflatten(2, (height // patch[0], width // patch[1]))
        return grid


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
