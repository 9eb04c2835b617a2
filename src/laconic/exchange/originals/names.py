"""What the published programs call their tensors, and what transformers (or laconic.hf) calls them.

A family's rules are tried in order; the first pattern that matches a whole name decides. `\\1` and `\\2` stand for the
pattern's groups. Knows names alone: shapes are in laconic.exchange.originals.models.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from laconic.errors import FormatError, printable


@dataclass(frozen=True)
class Rule:
    """What becomes of the tensors whose names match.

    Attributes:
        pattern: regular expression of a whole name.
        name: under which it is kept; "" leaves it out. With `{}` in it the tensor is query, key and value, one after
            the other, and becomes three, whose names have the words of `parts` there.
        parts: for `{}`.
        transposed: a matrix that the original multiplies from the right.
    """

    pattern: str
    name: str = ""
    parts: tuple[str, ...] = ()
    transposed: bool = False


@dataclass(frozen=True)
class Renamed:
    """Tensors under new names.

    Attributes:
        state: by new name.
        left_out: old names of what no model here has.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def rename(state: Mapping[str, Tensor], rules: Iterable[Rule], family: str) -> Renamed:
    """The tensors under transformers' names. FormatError for a name that no rule knows, or parts that do not fit."""
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    named, left = {}, []
    for old, tensor in state.items():
        found = next(((match, rule) for pattern, rule in compiled if (match := pattern.fullmatch(old))), None)
        if found is None:
            raise FormatError(f"'{printable(old)}' is no tensor of {family} as published")
        match, rule = found
        if not rule.name:
            left.append(old)
            continue
        new = match.expand(rule.name)
        if rule.parts:
            if not tensor.ndim or len(tensor) % len(rule.parts):
                raise FormatError(f"{old} has the shape {tuple(tensor.shape)}, which is not query, key and value")
            for part, piece in zip(rule.parts, tensor.chunk(len(rule.parts)), strict=True):
                named[new.format(part)] = piece
        else:
            named[new] = tensor.t() if rule.transposed and tensor.ndim == 2 else tensor
    return Renamed(named, tuple(left))


def _vit(theirs: str, layers: str) -> tuple[Rule, ...]:
    """Layers of timm's Vision Transformer, as transformers' ViT has them."""
    layer = rf"{theirs}blocks\.(\d+)\."
    return (
        Rule(rf"{layer}attn\.qkv\.(weight|bias)", rf"{layers}\1.attention.{{}}_proj.\2", ("q", "k", "v")),
        Rule(rf"{layer}attn\.proj\.(weight|bias)", rf"{layers}\1.attention.o_proj.\2"),
        Rule(rf"{layer}norm1\.(weight|bias)", rf"{layers}\1.layernorm_before.\2"),
        Rule(rf"{layer}norm2\.(weight|bias)", rf"{layers}\1.layernorm_after.\2"),
        Rule(rf"{layer}mlp\.(fc[12])\.(weight|bias)", rf"{layers}\1.mlp.\2.\3"),
    )


def _vit_tower(theirs: str) -> tuple[Rule, ...]:
    return (
        Rule(rf"{theirs}cls_token", "vit.embeddings.cls_token"),
        Rule(rf"{theirs}pos_embed", "vit.embeddings.position_embeddings"),
        Rule(rf"{theirs}patch_embed\.proj\.(weight|bias)", r"vit.embeddings.patch_embeddings.projection.\1"),
        Rule(rf"{theirs}norm\.(weight|bias)", r"vit.layernorm.\1"),
        *_vit(theirs, "vit.layers."),
    )


_BLIP_LAYER = r"visual_encoder\.blocks\.(\d+)\."
BLIP = (
    Rule(r"(visual_encoder|text_encoder|text_decoder|vision_proj|text_proj)_m\..*"),  # momentum copies
    Rule(
        r"(image|text|idx|ptr)_queue|queue_ptr|temp"
    ),  # transformers has no temperature: laconic's training relearns it
    Rule(r".*\.position_ids"),
    Rule(r"visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    Rule(r"visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    Rule(r"visual_encoder\.patch_embed\.proj\.(weight|bias)", r"vision_model.embeddings.patch_embedding.\1"),
    Rule(r"visual_encoder\.norm\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    Rule(rf"{_BLIP_LAYER}attn\.qkv\.(weight|bias)", r"vision_model.encoder.layers.\1.self_attn.qkv.\2"),
    Rule(rf"{_BLIP_LAYER}attn\.proj\.(weight|bias)", r"vision_model.encoder.layers.\1.self_attn.projection.\2"),
    Rule(rf"{_BLIP_LAYER}norm([12])\.(weight|bias)", r"vision_model.encoder.layers.\1.layer_norm\2.\3"),
    Rule(rf"{_BLIP_LAYER}mlp\.(fc[12])\.(weight|bias)", r"vision_model.encoder.layers.\1.mlp.\2.\3"),
    Rule(r"(text_encoder\..*\.crossattention\.output)\.merge_layer\.(weight|bias)", r"\1.merge.\2"),
    Rule(r"((?:text_encoder|text_decoder|vision_proj|text_proj|itm_head|cls_head)\..*)", r"\1"),
)

_CLIP_LAYER = r"transformer\.resblocks\.(\d+)\."


def _clip_tower(theirs: str, ours: str) -> tuple[Rule, ...]:
    layer, to = rf"{theirs}{_CLIP_LAYER}", rf"{ours}.encoder.layers.\1."
    return (
        Rule(rf"{layer}attn\.in_proj_(weight|bias)", rf"{to}self_attn.{{}}_proj.\2", ("q", "k", "v")),
        Rule(rf"{layer}attn\.out_proj\.(weight|bias)", rf"{to}self_attn.out_proj.\2"),
        Rule(rf"{layer}ln_([12])\.(weight|bias)", rf"{to}layer_norm\2.\3"),
        Rule(rf"{layer}mlp\.c_fc\.(weight|bias)", rf"{to}mlp.fc1.\2"),
        Rule(rf"{layer}mlp\.c_proj\.(weight|bias)", rf"{to}mlp.fc2.\2"),
    )


CLIP = (
    Rule(r"(visual|transformer|token_embedding|ln_final)_m\..*|(positional_embedding|text_projection)_m"),
    Rule(r"input_resolution|context_length|vocab_size|(image|text|idx|ptr)_queue|queue_ptr"),
    Rule(r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    Rule(r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    Rule(r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    Rule(r"visual\.ln_pre\.(weight|bias)", r"vision_model.pre_layrnorm.\1"),  # transformers' spelling
    Rule(r"visual\.ln_post\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    Rule(r"visual\.proj", "visual_projection.weight", transposed=True),
    Rule(r"token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    Rule(r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    Rule(r"ln_final\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    Rule(r"text_projection", "text_projection.weight", transposed=True),
    Rule(r"logit_scale", "logit_scale"),
    *_clip_tower(r"visual\.", "vision_model"),
    *_clip_tower("", "text_model"),
)

DEIT = (*_vit_tower(""), Rule(r"head\.(weight|bias)", r"classifier.\1"))

SEGMENTER = (
    *_vit_tower(r"encoder\."),
    Rule(r"encoder\.head\.(weight|bias)"),  # of the classification that the encoder was trained on before
    Rule(r"decoder\.cls_emb", "decoder.class_tokens"),
    Rule(r"decoder\.proj_dec\.(weight|bias)", r"decoder.projection.\1"),
    Rule(r"decoder\.proj_patch", "decoder.patch_projection.weight", transposed=True),
    Rule(r"decoder\.proj_classes", "decoder.class_projection.weight", transposed=True),
    Rule(r"decoder\.decoder_norm\.(weight|bias)", r"decoder.layernorm.\1"),
    Rule(r"decoder\.mask_norm\.(weight|bias)", r"decoder.mask_norm.\1"),
    *_vit(r"decoder\.", "decoder.layers."),
)
