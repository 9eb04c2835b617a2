"""The published checkpoints of BLIP, CLIP, DeiT and Segmenter as models of transformers, dense or pruned by UPop.

    found = read_original(Path("model_base_caption_capfilt_large.pth"))
    hf.save_pretrained(found.net, "blip_caption", tokenizer)

These files tell no configuration. Everything follows from names and shapes: the family, the widths, the patch, the
image and, since all of them have heads of 64, the heads. A pruned file has smaller matrices than its width asks for.
The model then has the same widths and computes what the published program computes from the file, which after pruning
divides the scores of BERT and CLIP by the root of what is left of a head (laconic keeps the dense head's).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from laconic.compress.structured.adapters import find_groups
from laconic.compress.structured.shrink import resize
from laconic.errors import FormatError, LaconicError, printable
from laconic.exchange.originals.names import BLIP, CLIP, DEIT, SEGMENTER, Rule, rename
from laconic.exchange.states import read_state
from laconic.hf.nlvr2 import BlipForVisualReasoning
from laconic.hf.padding import honour_padding
from laconic.hf.segmenter import Segmenter, SegmenterConfig
from laconic.spec.pixels import Normalization

MAX_BYTES = 2**33  # of a checkpoint; CLIP-L with its momentum copy and its optimizer has 5 * 10^9
MAX_WIDTH, MAX_LAYERS = 4096, 64
HEAD = 64  # of every published model of these families
FEED_FORWARD = 4  # times the width, likewise
BERT_SPECIALS = {"pad_token_id": 0, "sep_token_id": 102, "eos_token_id": 102}  # of bert-base-uncased; then [DEC], [ENC]

State = Mapping[str, Tensor]


def _of_shares(mean: tuple[float, ...], deviation: tuple[float, ...]) -> Normalization:
    """From the mean and deviation of numbers 0 to 1."""
    return Normalization(tuple(255 * value for value in mean), tuple(255 * value for value in deviation))


OF_CLIP = _of_shares((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
OF_IMAGENET = _of_shares((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Original:
    """A published checkpoint as a model.

    Attributes:
        family: in words.
        net: of transformers or of laconic.hf, in evaluation mode.
        left_out: names in the file of what the model has no place for: momentum copies, queues, temperature.
        pixels: how it wants them normalised.
        words: whose tokenizer it reads, "BERT" or "CLIP"; "": it reads no text.
        first: token that begins what is asked about an image; the published programs set [ENC] in the place of [CLS].
    """

    family: str
    net: nn.Module
    left_out: tuple[str, ...]
    pixels: Normalization
    words: str = ""
    first: str = "[CLS]"

    @property
    def side(self) -> int:
        """Of the square images that it reads, in pixels."""
        config: Any = self.net.config
        side: int = getattr(config, "vision_config", config).image_size
        return side


@dataclass(frozen=True)
class Family:
    """One kind of published model.

    Attributes:
        name: in words.
        marks: names of tensors that tell it from those after it in FAMILIES.
        rules: for names.
        make: the dense model for a state.
        pixels: as in Original.
        root_of_width: attention divides its scores by the root of a pruned head's width where transformers keeps 64's.
        words, first: as in Original.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    make: Callable[[State], nn.Module]
    pixels: Normalization
    root_of_width: bool = False
    words: str = ""
    first: str = "[CLS]"


def read_original(path: Path) -> Original:
    """The model of a checkpoint in its published layout.

    Raises:
        FormatError: no sound checkpoint, no family that is known, names or shapes that do not fit it, or values that
            are not finite.
    """
    state = {name: tensor.float() for name, tensor in read_state(path, MAX_BYTES).items() if not tensor.is_sparse}
    family = next((each for each in FAMILIES if all(mark in state for mark in each.marks)), None)
    if family is None:
        raise FormatError(
            f"{path}: holds none of {', '.join(each.name for each in FAMILIES)} under their published names; a folder "
            "of save_pretrained needs no conversion"
        )
    try:
        renamed = rename(state, family.rules, family.name)
        with torch.no_grad():
            net = _filled(family, state, renamed.state)
    except (KeyError, IndexError) as error:
        raise FormatError(f"{path}: {error.args[0]!s:.99} is missing, which {family.name} has") from None
    except (LaconicError, RuntimeError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: cannot be read as {family.name}: {reason:.300}") from None
    return Original(family.name, honour_padding(net.eval()), renamed.left_out, family.pixels, family.words,
                    family.first)  # fmt: skip


def _filled(family: Family, state: State, renamed: State) -> nn.Module:
    """The model with the widths and the weights of a file."""
    net = family.make(state)
    widths = _widths(net, renamed)
    resize(net, widths)
    expected = net.state_dict()
    odd = sorted(expected.keys() ^ renamed.keys())
    if odd:
        raise FormatError(f"'{printable(odd[0])}' is {'missing' if odd[0] in expected else 'not part of it'}")
    for name, tensor in renamed.items():
        if tensor.shape != expected[name].shape:
            raise FormatError(
                f"{name} has the shape {tuple(tensor.shape)}; beside the others it should be "
                f"{tuple(expected[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise FormatError(f"{name} holds values that are not finite")
    net.load_state_dict(renamed)
    if family.root_of_width:
        _rescale(net, widths)
    else:
        _check_tied(net, renamed)
    return net


def _widths(net: nn.Module, renamed: State) -> dict[str, int]:
    """Units of the groups that a file has fewer of than the dense model."""
    widths = {}
    for group in find_groups(net):
        layer: Any = net.get_submodule(group.producers[0])
        rows = len(renamed[f"{group.producers[0]}.weight"])
        width, rest = divmod(rows * group.size, layer.out_features)
        if rest or not 0 < width <= group.size:
            raise FormatError(f"{group.producers[0]} has {rows} rows, which no pruned {group.name} has")
        if width < group.size:
            widths[group.name] = width
    return widths


def _rescale(net: nn.Module, widths: Mapping[str, int]) -> None:
    """transformers' CLIP keeps the factor 1 / sqrt(64); the published one takes the width anew, so the query grows."""
    for name, width in widths.items():
        query = getattr(net.get_submodule(name), "q_proj", None)
        if query is not None:
            for parameter in query.parameters():
                parameter.mul_(math.sqrt(HEAD / width))


def _check_tied(net: nn.Module, renamed: State) -> None:
    """FormatError where tensors that the model shares, such as embeddings and output, differ in the file."""
    for name, tensor in net.state_dict().items():
        if not torch.equal(tensor, renamed[name]):
            raise FormatError(f"{name} is not what it shares its values with; the file is damaged")


# Configurations, from shapes


def _layers(state: State, pattern: str) -> int:
    """How many of `pattern`, which has {} for a number, there are."""
    count = 0
    while pattern.format(count) in state:
        count += 1
    if not 0 < count <= MAX_LAYERS:
        raise FormatError(f"{count} layers of '{pattern}'; 1 to {MAX_LAYERS} are possible")
    return count


def _tower(width: int, layers: int) -> dict[str, Any]:
    """What every configuration of transformers calls a tower's widths and numbers."""
    if not 0 < width <= MAX_WIDTH or width % HEAD:
        raise FormatError(f"a width of {width}; multiples of {HEAD} up to {MAX_WIDTH} are possible")
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // HEAD,
        "intermediate_size": FEED_FORWARD * width,
    }


def _vision(patches: Tensor, positions: int, layers: int) -> dict[str, Any]:
    """Of a Vision Transformer.

    Args:
        patches: weight of the convolution that embeds them (width, 3, patch, patch).
        positions: embeddings of positions, the class token's included.
        layers: number of them.
    """
    if patches.ndim != 4 or patches.shape[1] != 3 or patches.shape[2] != patches.shape[3]:
        raise FormatError(f"patches are embedded by {tuple(patches.shape)}; squares of 3 channels are read")
    side = math.isqrt(positions - 1)
    if side < 1 or side * side != positions - 1:
        raise FormatError(f"{positions} positions are not one class token and a square of patches")
    patch = patches.shape[2]
    return {**_tower(len(patches), layers), "image_size": side * patch, "patch_size": patch}


def _timm(state: State, prefix: str = "") -> dict[str, Any]:
    return _vision(
        state[f"{prefix}patch_embed.proj.weight"],
        state[f"{prefix}pos_embed"].shape[-2],
        _layers(state, f"{prefix}blocks.{{}}.norm1.weight"),
    )


def _blip_config(state: State, text: str) -> transformers.BlipConfig:
    """`text`: the tower of words that tells the sizes."""
    words, width = state[f"{text}.embeddings.word_embeddings.weight"].shape
    vision = _timm(state, "visual_encoder.") | {"layer_norm_eps": 1e-6}
    texts = {
        **_tower(width, _layers(state, f"{text}.encoder.layer.{{}}.output.LayerNorm.weight")),
        **BERT_SPECIALS,
        "vocab_size": words,
        "bos_token_id": words - 2,  # [DEC], which begins what a decoder writes
        "encoder_hidden_size": vision["hidden_size"],
        "max_position_embeddings": len(state[f"{text}.embeddings.position_embeddings.weight"]),
    }
    config = transformers.BlipConfig(text_config=texts, vision_config=vision)
    if "vision_proj.weight" in state:
        config.image_text_hidden_size = len(state["vision_proj.weight"])
    return config


def _blip(kind: Callable[[Any], nn.Module], text: str) -> Callable[[State], nn.Module]:
    return lambda state: kind(_blip_config(state, text))


def _clip(state: State) -> nn.Module:
    words, width = state["token_embedding.weight"].shape
    texts = {
        **_tower(width, _layers(state, "transformer.resblocks.{}.ln_1.weight")),
        "vocab_size": words,
        "max_position_embeddings": len(state["positional_embedding"]),
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
    }
    vision = _vision(
        state["visual.conv1.weight"],
        len(state["visual.positional_embedding"]),
        _layers(state, "visual.transformer.resblocks.{}.ln_1.weight"),
    )
    shared = state["text_projection"].shape[-1]
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=texts, vision_config=vision, projection_dim=shared)
    )


def _deit(state: State) -> nn.Module:
    classes = len(state["head.weight"])
    config = transformers.ViTConfig(**_timm(state), layer_norm_eps=1e-6)
    config.num_labels = classes
    return transformers.ViTForImageClassification(config)


def _segmenter(state: State) -> nn.Module:
    config = SegmenterConfig(
        **_timm(state, "encoder."),
        layer_norm_eps=1e-5,
        decoder_layers=_layers(state, "decoder.blocks.{}.norm1.weight"),
    )
    config.num_labels = state["decoder.cls_emb"].shape[-2]
    return Segmenter(config)


_SEEN = "visual_encoder.cls_token"
_ENCODER, _DECODER = "text_encoder", "text_decoder.bert"
_TWIN = "text_encoder.encoder.layer.0.crossattention.self0.query.weight"
FAMILIES = (  # the first one whose marks are all there
    Family("BLIP for visual reasoning (NLVR2)", (_SEEN, _TWIN), BLIP, _blip(BlipForVisualReasoning, _ENCODER),
           OF_CLIP, words="BERT", first="[ENC]"),
    Family("BLIP for question answering",
           (_SEEN, f"{_ENCODER}.embeddings.word_embeddings.weight", f"{_DECODER}.embeddings.word_embeddings.weight"),
           BLIP, _blip(transformers.BlipForQuestionAnswering, _ENCODER), OF_CLIP, words="BERT", first="[ENC]"),
    Family("BLIP for retrieval", (_SEEN, "itm_head.weight"), BLIP,
           _blip(transformers.BlipForImageTextRetrieval, _ENCODER), OF_CLIP, words="BERT"),
    Family("BLIP for captioning", (_SEEN, f"{_DECODER}.embeddings.word_embeddings.weight"), BLIP,
           _blip(transformers.BlipForConditionalGeneration, _DECODER), OF_CLIP, words="BERT"),
    Family("CLIP", ("visual.conv1.weight", "token_embedding.weight"), CLIP, _clip, OF_CLIP, root_of_width=True,
           words="CLIP"),
    Family("Segmenter", ("decoder.cls_emb", "encoder.cls_token"), SEGMENTER, _segmenter, Normalization()),
    Family("DeiT without distillation", ("cls_token", "head.weight"), DEIT, _deit, OF_IMAGENET),
)  # fmt: skip
