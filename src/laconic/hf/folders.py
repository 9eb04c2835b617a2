"""Ordinary Hugging Face folders, of dense models and of slim ones.

A slim model's folder is the dense one's but for smaller tensors and `slim_dims` in config.json: width by name of group.
`from_pretrained` reads that, makes room for those widths, and loads. Weights are safetensors, never pickles.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging

from laconic.compress.structured.shrink import resize
from laconic.errors import FormatError, TrainingError, printable
from laconic.hf.cards import CARD, slim_card, write_card
from laconic.hf.configuration import CONFIG, architecture
from laconic.hf.nlvr2 import BlipForVisualReasoning
from laconic.hf.padding import honour_padding
from laconic.hf.patches import fit_channels
from laconic.hf.segmenter import Segmenter
from laconic.machine.folders import folder_atomically

WEIGHTS = "model.safetensors"
OTHERS = ("generation_config.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json")
PARTS = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json", "vocab.json")
OF_MODEL = {CARD, CONFIG, WEIGHTS, *OTHERS, *PARTS}  # what save_pretrained may write over

OURS: Mapping[str, type[Any]] = {"BlipForVisualReasoning": BlipForVisualReasoning, "Segmenter": Segmenter}
THEIRS = (
    *("BlipForConditionalGeneration", "BlipForQuestionAnswering", "BlipForImageTextRetrieval", "BlipModel"),
    *("CLIPModel", "ViTForImageClassification", "DeiTForImageClassification"),
)


def from_pretrained(folder: str | Path) -> nn.Module:
    """The model in a folder, dense or slim, in evaluation mode; nothing is downloaded.

    BLIP's padding is honoured (laconic.hf.padding) and its patches fit the channels (laconic.hf.patches).

    Raises:
        FormatError: no such folder, a class that is not known here, pickled weights alone, widths or tensors that do
            not fit, or names of weights that are missing or too many.
    """
    folder = Path(folder)
    kind = _class_of(folder)
    if not (folder / WEIGHTS).is_file():
        raise FormatError(
            f"{folder}: holds no {WEIGHTS}; weights in pickles or in several files are not read: save the model with "
            "safetensors, in one file"
        )
    try:
        with _quiet():
            net, found = _slimming(kind).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:  # a hostile configuration makes transformers raise anything
        reason = " ".join(str(error).split())[:300]
        raise FormatError(f"{folder}: cannot be loaded as {kind.__name__} ({reason})") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found.get(what):
            names = ", ".join(sorted(map(str, found[what]))[:3])
            raise FormatError(f"{folder}: {what.replace('_', ' ')} for {kind.__name__}: {names}; save it again whole")
    net.__class__ = kind
    return honour_padding(net.eval())


def save_pretrained(net: nn.Module, folder: str | Path, tokenizer: Any = None, processor: Any = None) -> None:
    """Writes model, and tokenizer and image processor where given, as a folder; a kill leaves it whole or not there.

    A model card, README.md, says what is known; one that is there already stays.

    Raises:
        TrainingError: the folder holds something else than an earlier model, or cannot be written.
    """
    folder = Path(folder)
    _refuse_others(folder)
    try:
        with folder_atomically(folder) as place:
            saved: Any = net
            with _quiet():
                saved.save_pretrained(place)
            for part in (tokenizer, processor):
                if part is not None:
                    part.save_pretrained(place)
            widths = getattr(saved.config, "slim_dims", None)
            write_card(place, folder, slim_card(type(net).__name__, saved.num_parameters(), widths))
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); free the disk or give another folder") from error


def _refuse_others(folder: Path) -> None:
    """TrainingError where writing would take something away that is no model."""
    if not folder.exists():
        return
    others = [folder.name] if not folder.is_dir() else sorted({path.name for path in folder.iterdir()} - OF_MODEL)
    if others:
        raise TrainingError(
            f"{folder}: holds something else than a model ({printable(others[0])}); give another folder"
        )


def _class_of(folder: Path) -> type[Any]:
    """The class that config.json names. FormatError where it is no such file, or names none that is known."""
    name = architecture(folder)
    if name in OURS:
        return OURS[name]
    if name not in THEIRS:
        raise FormatError(
            f"{folder / CONFIG}: architecture {name!r:.80} is not known here; there are {', '.join((*OURS, *THEIRS))}"
        )
    kind: type[Any] = getattr(transformers, name)
    return kind


def _slimming(kind: type[Any]) -> type[Any]:
    """The class, made with the channels and widths that its configuration tells."""

    def make(self: Any, config: Any) -> None:
        kind.__init__(self, config)
        fit_channels(self)
        resize(self, getattr(config, "slim_dims", None) or {})

    return type(kind.__name__, (kind,), {"__init__": make, "__module__": kind.__module__})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and hints, which speak of its files and not of what the user asked for."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
