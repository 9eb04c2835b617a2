"""State dicts as the programs of BLIP, CLIP, DeiT and Segmenter write them, random, and what those programs compute.

Written from the papers and the published names alone, in plain torch: nothing here is of transformers or of laconic.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def random_state(shapes: Shapes, seed: int = 0) -> State:
    """Values that keep activations of order one; gains of norms around one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes:
        values = torch.randn(shape, generator=generator)
        fan = shape[-1] if len(shape) == 2 else 16
        state[name] = 1 + 0.1 * values if "norm" in name.lower() and name.endswith("weight") else values / fan**0.5
    return state


def linear(name: str, out: int, inputs: int) -> Shapes:
    yield f"{name}.weight", (out, inputs)
    yield f"{name}.bias", (out,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


# timm's Vision Transformer, in BLIP, DeiT and Segmenter


def vit_blocks(prefix: str, width: int, layers: int, head: int = 64, hidden: int = 0) -> Shapes:
    """`head`: what is left of a head's 64; `hidden`: of the feed-forward width."""
    inner = width // 64 * head
    for layer in range(layers):
        block = f"{prefix}blocks.{layer}."
        yield from norm(f"{block}norm1", width)
        yield from linear(f"{block}attn.qkv", 3 * inner, width)
        yield from linear(f"{block}attn.proj", width, inner)
        yield from norm(f"{block}norm2", width)
        yield from linear(f"{block}mlp.fc1", hidden or 4 * width, width)
        yield from linear(f"{block}mlp.fc2", width, hidden or 4 * width)


def vit(prefix: str, width: int = 128, layers: int = 2, side: int = 4, patch: int = 8, **slim: int) -> Shapes:
    yield f"{prefix}cls_token", (1, 1, width)
    yield f"{prefix}pos_embed", (1, side * side + 1, width)
    yield f"{prefix}patch_embed.proj.weight", (width, 3, patch, patch)
    yield f"{prefix}patch_embed.proj.bias", (width,)
    yield from vit_blocks(prefix, width, layers, **slim)
    yield from norm(f"{prefix}norm", width)


def run_blocks(state: State, prefix: str, x: Tensor, eps: float) -> Tensor:
    heads, layer = x.shape[-1] // 64, 0
    while f"{prefix}blocks.{layer}.norm1.weight" in state:
        part = under(state, f"{prefix}blocks.{layer}.")
        q, k, v = dense(part, "attn.qkv", normed(part, "norm1", x, eps)).chunk(3, -1)
        q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
        seen = ((q @ k.transpose(2, 3)) * 64**-0.5).softmax(-1) @ v  # the dense head's factor, pruned or not
        x = x + dense(part, "attn.proj", seen.transpose(1, 2).flatten(2))
        x = x + dense(part, "mlp.fc2", F.gelu(dense(part, "mlp.fc1", normed(part, "norm2", x, eps))))
        layer += 1
    return x


def run_vit(state: State, prefix: str, images: Tensor, eps: float) -> Tensor:
    part = under(state, prefix)
    patches = F.conv2d(images, part["patch_embed.proj.weight"], part["patch_embed.proj.bias"],
                       stride=part["patch_embed.proj.weight"].shape[-1])  # fmt: skip
    tokens = torch.cat([part["cls_token"].expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    return normed(part, "norm", run_blocks(state, prefix, tokens + part["pos_embed"], eps), eps)


def deit(classes: int = 3, **slim: int) -> Shapes:
    yield from vit("", **slim)
    yield from linear("head", classes, slim.get("width", 128))


def run_deit(state: State, images: Tensor) -> Tensor:
    return dense(state, "head", run_vit(state, "", images, 1e-6)[:, 0])


def segmenter(classes: int = 5, width: int = 128, **slim: int) -> Shapes:
    yield from vit("encoder.", width, **slim)
    yield from linear("encoder.head", 1000, width)
    yield "decoder.cls_emb", (1, classes, width)
    yield "decoder.proj_patch", (width, width)
    yield "decoder.proj_classes", (width, width)
    yield from linear("decoder.proj_dec", width, width)
    yield from vit_blocks("decoder.", width, 2)
    yield from norm("decoder.decoder_norm", width)
    yield from norm("decoder.mask_norm", classes)


def run_segmenter(state: State, images: Tensor) -> Tensor:
    patches = dense(state, "decoder.proj_dec", run_vit(state, "encoder.", images, 1e-5)[:, 1:])
    count = patches.shape[1]
    both = torch.cat([patches, state["decoder.cls_emb"].expand(len(images), -1, -1)], 1)
    both = normed(state, "decoder.decoder_norm", run_blocks(state, "decoder.", both, 1e-5), 1e-5)
    seen = F.normalize(both[:, :count] @ state["decoder.proj_patch"], dim=-1)
    classes = F.normalize(both[:, count:] @ state["decoder.proj_classes"], dim=-1)
    masks = normed(state, "decoder.mask_norm", seen @ classes.transpose(1, 2), 1e-5)
    side = round(count**0.5)
    return masks.transpose(1, 2).unflatten(2, (side, side))


# CLIP


def clip_blocks(prefix: str, width: int, layers: int, head: int, hidden: int) -> Shapes:
    inner = width // 64 * head
    for layer in range(layers):
        block = f"{prefix}transformer.resblocks.{layer}."
        yield f"{block}attn.in_proj_weight", (3 * inner, width)
        yield f"{block}attn.in_proj_bias", (3 * inner,)
        yield from linear(f"{block}attn.out_proj", width, inner)
        yield from norm(f"{block}ln_1", width)
        yield from linear(f"{block}mlp.c_fc", hidden or 4 * width, width)
        yield from linear(f"{block}mlp.c_proj", width, hidden or 4 * width)
        yield from norm(f"{block}ln_2", width)


def clip(head: int = 64, hidden: int = 0) -> Shapes:
    yield "positional_embedding", (10, 64)
    yield "text_projection", (64, 32)
    yield "logit_scale", ()
    yield "visual.class_embedding", (128,)
    yield "visual.positional_embedding", (17, 128)
    yield "visual.proj", (128, 32)
    yield "visual.conv1.weight", (128, 3, 8, 8)
    yield from norm("visual.ln_pre", 128)
    yield from norm("visual.ln_post", 128)
    yield from clip_blocks("visual.", 128, 2, head, hidden)
    yield from clip_blocks("", 64, 3, head, hidden)
    yield "token_embedding.weight", (40, 64)
    yield from norm("ln_final", 64)


def run_clip_blocks(state: State, prefix: str, x: Tensor, causal: bool) -> Tensor:
    heads, layer = x.shape[-1] // 64, 0
    while f"{prefix}transformer.resblocks.{layer}.ln_1.weight" in state:
        part = under(state, f"{prefix}transformer.resblocks.{layer}.")
        qkv = F.linear(normed(part, "ln_1", x, 1e-5), part["attn.in_proj_weight"], part["attn.in_proj_bias"])
        q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in qkv.chunk(3, -1))
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5  # the present width, as torch's attention takes it
        if causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        x = x + dense(part, "attn.out_proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        hidden = dense(part, "mlp.c_fc", normed(part, "ln_2", x, 1e-5))
        x = x + dense(part, "mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))
        layer += 1
    return x


def run_clip(state: State, images: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of images and texts, not normalised."""
    patches = F.conv2d(images, state["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(images), 1, -1), patches], 1)
    x = normed(state, "visual.ln_pre", x + state["visual.positional_embedding"], 1e-5)
    x = normed(state, "visual.ln_post", run_clip_blocks(state, "visual.", x, causal=False)[:, 0], 1e-5)
    y = state["token_embedding.weight"][words] + state["positional_embedding"][: words.shape[1]]
    y = normed(state, "ln_final", run_clip_blocks(state, "", y, causal=True), 1e-5)
    return x @ state["visual.proj"], y[torch.arange(len(y)), words.argmax(-1)] @ state["text_projection"]


# BLIP


def bert_attention(prefix: str, width: int, seen: int, head: int, selves: tuple[str, ...] = ("self",)) -> Shapes:
    inner = width // 64 * head
    for own in selves:
        for part, inputs in (("query", width), ("key", seen), ("value", seen)):
            yield from linear(f"{prefix}{own}.{part}", inner, inputs)


def bert(prefix: str, seen: int, words: int = 42, layers: int = 2, head: int = 64, twin: bool = False) -> Shapes:
    """A text tower of width 64; `seen`: width of the images that it looks at."""
    yield f"{prefix}embeddings.position_ids", (1, 20)
    yield f"{prefix}embeddings.word_embeddings.weight", (words, 64)
    yield f"{prefix}embeddings.position_embeddings.weight", (20, 64)
    yield from norm(f"{prefix}embeddings.LayerNorm", 64)
    for layer in range(layers):
        block = f"{prefix}encoder.layer.{layer}."
        yield from bert_attention(f"{block}attention.", 64, 64, head)
        yield from linear(f"{block}attention.output.dense", 64, head)
        yield from norm(f"{block}attention.output.LayerNorm", 64)
        yield from bert_attention(f"{block}crossattention.", 64, seen, head, ("self0", "self1") if twin else ("self",))
        for number in "01" if twin else ("",):
            yield from linear(f"{block}crossattention.output.dense{number}", 64, head)
        if twin and layer >= layers // 2:
            yield from linear(f"{block}crossattention.output.merge_layer", 64, 128)
        yield from norm(f"{block}crossattention.output.LayerNorm", 64)
        yield from linear(f"{block}intermediate.dense", 256, 64)
        yield from linear(f"{block}output.dense", 64, 256)
        yield from norm(f"{block}output.LayerNorm", 64)


def bert_head(prefix: str, words: int = 42) -> Shapes:
    yield f"{prefix}predictions.bias", (words,)
    yield from linear(f"{prefix}predictions.transform.dense", 64, 64)
    yield from norm(f"{prefix}predictions.transform.LayerNorm", 64)
    yield from linear(f"{prefix}predictions.decoder", words, 64)


def tied(state: State) -> State:
    """Embeddings and output of a decoder are one tensor, and its bias is there twice."""
    head = "text_decoder.cls.predictions."
    if f"{head}bias" in state:
        state[f"{head}decoder.weight"] = state["text_decoder.bert.embeddings.word_embeddings.weight"]
        state[f"{head}decoder.bias"] = state[f"{head}bias"]
    return state


def run_cross_decoder(state: State, words: Tensor, images: Tensor) -> Tensor:
    """Logits of BLIP's captioning decoder."""
    part = under(state, "text_decoder.bert.")
    places = part["embeddings.position_embeddings.weight"][: words.shape[1]]
    x = normed(part, "embeddings.LayerNorm", part["embeddings.word_embeddings.weight"][words] + places, 1e-12)
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in part:
        block = under(part, f"encoder.layer.{layer}.")
        x = bert_attend(block, "attention.", x, x, causal=True)
        x = bert_attend(block, "crossattention.", x, images, causal=False)
        hidden = dense(block, "output.dense", F.gelu(dense(block, "intermediate.dense", x)))
        x = normed(block, "output.LayerNorm", hidden + x, 1e-12)
        layer += 1
    top = under(state, "text_decoder.cls.predictions.")
    x = normed(top, "transform.LayerNorm", F.gelu(dense(top, "transform.dense", x)), 1e-12)
    return dense(top, "decoder", x)


def bert_attend(block: Mapping[str, Tensor], name: str, x: Tensor, seen: Tensor, causal: bool) -> Tensor:
    q, k, v = (
        dense(block, f"{name}self.{part}", given) for part, given in (("query", x), ("key", seen), ("value", seen))
    )
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5  # one head, of its present width
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
    return normed(
        block, f"{name}output.LayerNorm", dense(block, f"{name}output.dense", scores.softmax(-1) @ v) + x, 1e-12
    )


# Parts


def under(state: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def dense(part: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, part[f"{name}.weight"], part[f"{name}.bias"])


def normed(part: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], part[f"{name}.weight"], part[f"{name}.bias"], eps)
