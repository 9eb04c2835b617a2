"""The Supermask Pruning authors' PyTorch checkpoints as laconic captioners.

Reads a run folder of their code: `config.json`, `word.vocab` (a sentencepiece vocabulary of type "word") and a state
dict of sparse COO or dense tensors. The files are taken as hostile: the pickle is read with `weights_only`, and no
tensor is made dense before names and shapes are known to be those of the captioner that the configuration describes.
Knows nothing of images or search.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import outline
from laconic.errors import ConfigError, FormatError
from laconic.exchange.states import read_state
from laconic.spec.model import REGIONS, DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import PIECE_START, SPECIALS, Vocabulary

CHECKPOINTS = ("model_best_pruned_sparse.pth", "model_best_pruned.pth", "model_best.pth")  # the first one there
MAX_BYTES = 2**31  # of a checkpoint; the largest published has 0.23 GB
MAX_WEIGHTS = 2**28  # of the dense model, 1 GiB; the published ones have 0.055 * 10^9
MAX_TEXT = 2**23  # bytes of the vocabulary and of the configuration

UP_DOWN_NAMES = {  # module of their Up-Down -> ours; parameters keep their own names
    "embed.0": "embedding",
    "fc_embed.0": "pooled",
    "att_embed.0": "region",
    "ctx2att": "key",
    "core.attention.h2att": "query",
    "core.attention.alpha_net": "score",
    "core.att_lstm": "attention_lstm",
    "core.lang_lstm": "language_lstm",
    "logit": "output",
}
UP_DOWN_OPTIONS = {  # their configuration -> ours
    "input_encoding_size": "word",
    "rnn_size": "hidden",
    "att_hid_size": "attention",
    "drop_prob_lm": "dropout",
}
UP_DOWN = ("up_down_lstm", "up_down_lstm_prune")


def convert(folder: Path) -> ImageCaptioner:
    """The captioner of a run folder, reading region features.

    Raises FormatError, naming file and key, for anything but a sound Up-Down run with a word vocabulary whose
    pad, unk, bos and eos are 0 to 3.
    """
    config = _read_config(folder / "config.json")
    vocabulary = read_vocabulary(folder / "word.vocab")
    model = ModelConfig(
        EncoderConfig(REGIONS, channels=config["att_feat_size"]),
        DecoderConfig("up_down", {ours: config[theirs] for theirs, ours in UP_DOWN_OPTIONS.items()}),
    )
    try:
        captioner = outline(model, vocabulary)
    except (ConfigError, TypeError, RuntimeError, ArithmeticError) as error:  # torch's own for absurd sizes
        raise FormatError(f"{folder / 'config.json'}: {str(error).splitlines()[0]}") from None
    names = [folder / name for name in CHECKPOINTS if (folder / name).is_file()]
    if not names:
        raise FormatError(f"{folder}: no checkpoint in it; there should be {' or '.join(CHECKPOINTS)}")
    weights = _fitting(names[0], read_state(names[0], MAX_BYTES), captioner.decoder.state_dict())
    captioner.decoder.load_state_dict(weights, assign=True)
    return captioner.eval()


def read_vocabulary(path: Path) -> Vocabulary:
    """The words of a sentencepiece `.vocab` file of model type "word": one piece and its score per line."""
    pieces = [line.split("\t")[0] for line in _read_text(path).splitlines()]
    if tuple(pieces[: len(SPECIALS)]) != SPECIALS:
        raise FormatError(f"{path}: begins with {pieces[:4]}, expected {list(SPECIALS)}: another kind of vocabulary")
    words = pieces[len(SPECIALS) :]
    for number, piece in enumerate(words, len(SPECIALS)):
        if not piece.startswith(PIECE_START):
            raise FormatError(f"{path}: piece {number} {piece!r:.60} is no whole word; only type 'word' is read")
    try:
        return Vocabulary((*SPECIALS, *(piece.removeprefix(PIECE_START) for piece in words)), "sentencepiece")
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _fitting(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense float32 weights under our names; FormatError unless they are exactly what the captioner expects."""
    renamed = {_our_name(str(name)): tensor for name, tensor in state.items()}
    if renamed.keys() != expected.keys():
        odd = sorted(renamed.keys() ^ expected.keys())[0]
        raise FormatError(f"{path}: {odd!r:.99} is {'missing' if odd in expected else 'not part of Up-Down'}")
    for name, tensor in renamed.items():
        if tensor.shape != expected[name].shape or not tensor.is_floating_point():
            found, wanted = f"{tensor.dtype} {tuple(tensor.shape)}", tuple(expected[name].shape)
            raise FormatError(f"{path}: {name} is {found}; by its configuration it should be float {wanted}")
    total = sum(tensor.numel() for tensor in expected.values())
    if total > MAX_WEIGHTS:
        raise FormatError(f"{path}: {total:,} weights, the limit is {MAX_WEIGHTS:,}; not loaded")
    try:
        dense = {name: _dense(tensor) for name, tensor in renamed.items()}
    except RuntimeError as error:
        raise FormatError(f"{path}: damaged tensors ({str(error).splitlines()[0]:.200}); copy it again") from error
    for name, tensor in dense.items():
        if not math.isfinite(float(tensor.abs().max())):
            raise FormatError(f"{path}: {name} holds values that are not finite")
    return dense


def _dense(tensor: Tensor) -> Tensor:
    """Float32; RuntimeError for indices outside of the shape, which to_dense would take for memory."""
    if tensor.is_sparse:
        tensor = torch.sparse_coo_tensor(tensor._indices(), tensor._values(), tensor.shape, check_invariants=True)
    return tensor.float().to_dense().contiguous()


def _our_name(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{UP_DOWN_NAMES[module]}.{parameter}" if module in UP_DOWN_NAMES else name


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON ({error}); give a folder that the authors' code has written") from None
    if not isinstance(config, dict):
        raise FormatError(f"{path}: not a JSON object; give a folder that the authors' code has written")
    wanted: dict[str, tuple[Any, ...]] = {"caption_model": UP_DOWN, "tokenizer": ("word",), "logit_layers": (1,)}
    wanted |= {f"{name.strip('<>')}_token_id": (id_,) for id_, name in enumerate(SPECIALS)}
    for key, choices in wanted.items():
        if config.get(key) not in choices:
            raise FormatError(f"{path}: {key} is {config.get(key)!r:.60}; only {choices[0]!r} can be converted")
    for key in ("att_feat_size", *UP_DOWN_OPTIONS):
        if type(config.get(key)) not in (int, float):
            raise FormatError(f"{path}: {key} is {config.get(key)!r:.60}, not a number")
    if config.get("fc_feat_size") != config["att_feat_size"]:
        raise FormatError(f"{path}: fc_feat_size is not att_feat_size; the pooled feature is the mean of the regions")
    return config


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise FormatError(f"{path}: no such file; give a folder that the authors' code has written")
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise FormatError(f"{path}: larger than {MAX_TEXT:,} bytes; not loaded")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read ({error})") from None
