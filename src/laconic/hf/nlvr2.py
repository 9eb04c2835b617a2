"""BLIP for natural language visual reasoning over two images (NLVR2), which transformers lacks.

    logits = net(input_ids, attention_mask, pixel_values)     # (n, 2): is the sentence false, is it true

The text encoder looks at both images through a twin of cross-attention in each layer (BLIP, Li et al. 2022, arXiv
2201.12086, section 5.4). The first half of the layers averages what the two see, the second half merges it linearly.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BlipConfig, BlipTextModel, BlipVisionModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.blip.modeling_blip import BlipPreTrainedModel
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

from laconic.errors import ConfigError, FormatError
from laconic.hf.patches import fit_channels

IMAGES = 2


class TwinOutput(nn.Module):
    """Projects what was seen in the two images, joins it, and adds the residual stream.

    Args:
        config: a BlipTextConfig.
        merge: joins by a linear layer of twice the width; otherwise by the mean.
    """

    def __init__(self, config: Any, merge: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.merge = nn.Linear(IMAGES * width, width) if merge else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, first: Tensor, second: Tensor, stream: Tensor) -> Tensor:
        """All (n, words, width)."""
        both = self.dense0(first), self.dense1(second)
        joined = (both[0] + both[1]) / 2 if self.merge is None else self.merge(torch.cat(both, -1))
        normed: Tensor = self.LayerNorm(self.dropout(joined) + stream)
        return normed


class TwinCrossAttention(nn.Module):
    """Cross-attention to two images, in the place of one of BLIP's text layers' `crossattention`."""

    def __init__(self, config: Any, layer: int, merge: bool) -> None:
        super().__init__()
        self.self0 = BlipTextSelfAttention(config, is_cross_attention=True, layer_idx=layer)
        self.self1 = BlipTextSelfAttention(config, is_cross_attention=True, layer_idx=layer)
        self.output = TwinOutput(config, merge)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        """Keywords are those that a layer of transformers passes.

        Args:
            hidden_states: (n, words, width).
            attention_mask: added to the scores of both images; None where all of them are seen.
            encoder_hidden_states: (n, 2, tokens, vision width).
        """
        images = encoder_hidden_states.unbind(1)
        seen = [
            attend(hidden_states, encoder_hidden_states=image, encoder_attention_mask=attention_mask)[0]
            for attend, image in zip((self.self0, self.self1), images, strict=True)
        ]
        return self.output(*seen, hidden_states), None


@torch.no_grad()
def with_two_images(net: Any) -> "BlipForVisualReasoning":
    """A BLIP that has learned to read beside one image, made to read beside two, as the published one begins.

    Vision tower and text encoder are copies of its own. Both of the twins take the cross-attention of their layer, and
    the second half of the layers merges as the first: by the mean. The head is new.

    Args:
        net: transformers' BlipForQuestionAnswering or BlipForImageTextRetrieval.

    Raises:
        ConfigError: a slim one, whose layers differ in width.
        FormatError: one whose text encoder does not look at an image.
    """
    if getattr(net.config, "slim_dims", None):
        raise ConfigError("a slim model cannot become one of two images: give it dense, and slim what comes out")
    made: Any = fit_channels(BlipForVisualReasoning(net.config))
    made.vision_model.load_state_dict(net.vision_model.state_dict())
    own, taken = made.text_encoder.state_dict(), net.text_encoder.state_dict()
    for name in own:
        source = name.replace("attention.self0.", "attention.self.").replace("attention.self1.", "attention.self.")
        source = source.replace("output.dense0.", "output.dense.").replace("output.dense1.", "output.dense.")
        if source in taken:
            own[name] = taken[source]
        elif name.endswith("merge.weight"):
            half = torch.eye(len(own[name])) / IMAGES
            own[name] = torch.cat([half] * IMAGES, 1)
        elif name.endswith("merge.bias"):
            own[name] = torch.zeros_like(own[name])
        else:
            raise FormatError(f"{type(net).__name__} has no {source}; give a BLIP whose text encoder looks at an image")
    made.text_encoder.load_state_dict(own)
    ready: BlipForVisualReasoning = made
    return ready


class BlipForVisualReasoning(BlipPreTrainedModel):
    """Tells whether a sentence is true of two images. At BLIP-base's size it has 259.372 M parameters."""

    config: BlipConfig

    def __init__(self, config: BlipConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        vision: Any = config.vision_config
        self.vision_model = BlipVisionModel(vision)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        layers = self.text_encoder.encoder.layer
        for index, layer in enumerate(layers):
            layer.crossattention = TwinCrossAttention(text, index, merge=index >= len(layers) // 2)
        width = text.hidden_size
        self.cls_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        embeddings: nn.Module = self.text_encoder.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Puts others in their place."""
        self.text_encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor | SequenceClassifierOutput:
        """Logits of false and true (n, 2), or with `labels` an output with `loss` and `logits`.

        Args:
            input_ids: (n, words); the first word's state is what the head reads.
            attention_mask: (n, words), 0 where a sentence is padded.
            pixel_values: (n, 2, channels, side, side), the left image first.
            labels: (n,), 1 where the sentence is true.
        """
        if pixel_values is None or pixel_values.ndim != 5 or pixel_values.shape[1] != IMAGES:
            shape = None if pixel_values is None else tuple(pixel_values.shape)
            raise ValueError(f"pixel_values must be (n, {IMAGES}, channels, side, side), not {shape}")
        images = self.vision_model(pixel_values.flatten(0, 1)).last_hidden_state.unflatten(0, (-1, IMAGES))
        words = self.text_encoder(input_ids, attention_mask=attention_mask, encoder_hidden_states=images)
        logits: Tensor = self.cls_head(words.last_hidden_state[:, 0])
        if labels is None:
            return logits
        return SequenceClassifierOutput(loss=F.cross_entropy(logits, labels), logits=logits)
