"""Plans of small captioners of every kind, in every width: what is damaged to see whether damage does harm."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.runtime.matrices import PackedMatrix, pack_matrix, unpack_matrix
from laconic.runtime.operations import FORMS, WIDTHS
from laconic.runtime.plan import ALIGNMENT, HEADER, Plan
from laconic.runtime.tables import pack_table, unpack_table
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import SPECIALS, Vocabulary

plan_of = runpy.run_path(str(Path(__file__).parents[1] / "held.py"))["plan_of"]

LSTM = DecoderConfig("soft_attention", {"hidden": 9, "word": 5})
GRU = DecoderConfig("soft_attention", {"hidden": 8, "word": 7, "cell": "gru"})
UP_DOWN = DecoderConfig("up_down", {"hidden": 10, "word": 6, "attention": 7})
AOANET = DecoderConfig("aoanet", {"layers": 1, "width": 12, "heads": 3})
TRANSFORMER = DecoderConfig("object_relation", {"layers": 1, "width": 12, "feed_forward": 9, "heads": 3})
REGIONS = EncoderConfig("regions", channels=5)


def pixels(name: str) -> EncoderConfig:
    return EncoderConfig(name, size=32, stride=16)


# encoder, captioner, share of weights that are not zero, width
KINDS: list[tuple[EncoderConfig, DecoderConfig, float, str]] = [
    (REGIONS, LSTM, 1.0, "FLOAT32"),
    (REGIONS, GRU, 0.3, "BFLOAT16"),
    (REGIONS, UP_DOWN, 0.3, "INT8"),
    (REGIONS, TRANSFORMER, 0.3, "FLOAT32"),
    (REGIONS, TRANSFORMER, 1.0, "INT8"),
    (REGIONS, AOANET, 0.3, "BFLOAT16"),
    (pixels("convnet"), TRANSFORMER, 1.0, "FLOAT32"),
    (pixels("mobilenet_v1_025"), LSTM, 0.3, "INT8"),
    (pixels("mobilenet_v2"), GRU, 0.02, "BFLOAT16"),
    (pixels("efficientnet_lite0"), LSTM, 0.02, "FLOAT32"),
    (pixels("inception_v1"), UP_DOWN, 0.02, "FLOAT32"),
    (pixels("vgg_small"), LSTM, 0.1, "FLOAT32"),
    (pixels("convnet"), AOANET, 1.0, "FLOAT32"),
]


def save_plans(folder: Path) -> Iterator[Path]:
    """A file for each of KINDS."""
    for number, (encoder, decoder, density, width) in enumerate(KINDS):
        path = folder / f"{number}-{encoder.name}-{decoder.name}-{width.lower()}.plan"
        stored_as(plan_of(_captioner(ModelConfig(encoder, decoder), density)), width).save(path)
        yield path


def _captioner(config: ModelConfig, density: float) -> ImageCaptioner:
    """Random weights, so large that captions differ; biases too, which are zero in a new captioner."""
    torch.manual_seed(1)
    vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(19))), "words")
    captioner = ImageCaptioner(config, vocabulary).eval()
    with torch.no_grad():
        for parameter in captioner.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn_like(parameter) * 0.3
            elif parameter.shape[1] > 1:  # not the kernels of single channels
                parameter *= (torch.rand_like(parameter) < density) * (2 if parameter.dim() == 2 else density**-0.5)
    return captioner


def stored_as(plan: Plan, width: str) -> Plan:
    """The same plan with the values of its matrices rounded to another width; INT8 to a hundredth of the largest."""
    if width == "FLOAT32":
        return plan
    arena, packed = plan.arena.tobytes(), [_repacked(row, _weights(plan, row), width) for row in plan.matrices]
    places = [0] * len(packed)
    for number, matrix in enumerate(packed):
        places[number] = len(arena)
        arena += matrix.data.ljust(-(-len(matrix.data) // ALIGNMENT) * ALIGNMENT, b"\0")
    h = plan.header
    before, words = plan.data[: int(h["arena_at"])].tobytes(), plan.data[int(h["words_at"]) :].tobytes()
    found = Plan.of(_resized(before + arena + words))
    found.header["arena_bytes"], found.header["words_at"] = len(arena), len(before) + len(arena)
    for row, place, matrix in zip(found.matrices, places, packed, strict=True):
        row["at"], row["bytes"], row["width"] = place, len(matrix.data), WIDTHS.index(width)
        row["step"], row["block"] = matrix.step, matrix.block
    return Plan.of(found.data)


def _resized(data: bytes) -> bytes:
    header = np.frombuffer(data[: HEADER.itemsize], HEADER).copy()
    header["bytes"] = len(data)
    return header.tobytes() + data[HEADER.itemsize :]


def _weights(plan: Plan, row: Any) -> np.ndarray:
    data = plan.arena[int(row["at"]) : int(row["at"]) + int(row["bytes"])]
    return (unpack_table if "TABLE" in FORMS[int(row["form"])] else unpack_matrix)(row, data)


def _repacked(row: Any, weights: np.ndarray, width: str) -> PackedMatrix:
    step = float(np.float32(np.abs(weights).max() / 100)) if width == "INT8" else 0.0
    if step:
        weights = np.rint(weights / np.float32(step)) * np.float32(step)
    if "TABLE" in FORMS[int(row["form"])]:
        return pack_table(weights, width, step)
    return pack_matrix(weights, width, step, form=FORMS[int(row["form"])])
