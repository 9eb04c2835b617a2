"""Cross-attention of BLIP that leaves out padding, which transformers 5 forgets.

A text layer of transformers hands the mask of what is looked at to its cross-attention as `attention_mask`, but the
attention reads `encoder_attention_mask`, which nobody gives. Images have no padding, so captions are right; questions
in a batch do, so their answers depend on the longest of them. `BlipForQuestionAnswering.generate` moreover makes a mask
of ones. `honour_padding` mends both in a model that is there already.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention


def honour_padding(model: nn.Module) -> nn.Module:
    """Makes BLIP's cross-attention use the mask that it is given, in place; other models are left as they are.

    Copies of the model are mended too, and calling it twice does nothing more. The mask of a question is what
    `attention_mask` says: give it wherever questions are padded.
    """
    for name, module in model.named_modules():
        crosses = name.rpartition(".")[0].endswith("crossattention") and isinstance(module, BlipTextSelfAttention)
        if crosses and _pass_mask not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_pass_mask, with_kwargs=True)
    if type(model).__name__ == "BlipForQuestionAnswering":
        model.generate = MethodType(answer, model)  # type: ignore[assignment]
    return model


def _pass_mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if kwargs.get("encoder_attention_mask") is None and kwargs.get("encoder_hidden_states") is not None:
        kwargs = {**kwargs, "encoder_attention_mask": kwargs.get("attention_mask")}
    return args, kwargs


@torch.no_grad()
def answer(
    net: Any,
    input_ids: Tensor,
    pixel_values: Tensor,
    attention_mask: Tensor | None = None,
    interpolate_pos_encoding: bool = False,
    **options: Any,
) -> Tensor:
    """Generates answers; what `generate` of a BlipForQuestionAnswering is after `honour_padding`.

    Args:
        net: a BlipForQuestionAnswering whose padding is honoured.
        input_ids: (n, words) of the questions.
        pixel_values: (n, channels, side, side).
        attention_mask: (n, words), 0 where a question is padded.
        options: of transformers' `generate`, such as num_beams.

    Returns:
        (n, words) of the answers, their first word the one that starts every answer.
    """
    images = net.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding).last_hidden_state
    question = net.text_encoder(input_ids, attention_mask=attention_mask, encoder_hidden_states=images)
    words = question.last_hidden_state
    mask = input_ids.new_ones(input_ids.shape) if attention_mask is None else attention_mask
    text: Any = net.config.text_config
    answers: Tensor = net.text_decoder.generate(
        input_ids=input_ids.new_full((len(words), 1), net.decoder_start_token_id),
        eos_token_id=text.sep_token_id,
        pad_token_id=text.pad_token_id,
        encoder_hidden_states=words,
        encoder_attention_mask=mask,
        **options,
    )
    return answers
