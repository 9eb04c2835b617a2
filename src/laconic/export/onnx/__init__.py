"""ONNX files of a captioner, for ONNX Runtime and whatever else reads them.

    encoder.onnx      images to the tensors that a step reads
    step.onnx         one step of the decoder, its state in and out: for a search of one's own
    greedy.onnx       images to captions: the encoder, and the whole greedy search as one loop
    *.int8.onnx       the same with weights of 8 bits
    vocabulary.json   the words by their numbers

    files        what is written
    modules      what is traced
    tracing      PyTorch's exporter
    rules        what greedy search may say
    looping      the greedy search
    quantizing   weights of 8 bits
    describing   what a file says of itself
    checking     whether a file says what the captioner says
    graphs       pieces of graphs

Importing this module needs none of the packages that writing does.
"""

import importlib
import importlib.util
from pathlib import Path

from laconic.errors import MissingError, printable
from laconic.export.table import Options
from laconic.spec.packed import read_spec
from laconic.store import Packed

NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime")
MAX_LENGTH = 20  # words of a caption where nobody says otherwise


def prepare() -> None:
    """Imports what writes the files, which takes seconds. MissingError where a package is not installed."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingError(f"ONNX files are written with {', '.join(missing)}: pip install 'laconic[onnx]'")
    importlib.import_module("laconic.export.onnx.files")


def write(packed: Packed, folder: Path, options: Options) -> list[str]:
    """Fills a folder, see laconic.export.table; lines that say how large the files are.

    Raises:
        ConfigError: there are no captions of that length, or PyTorch's exporter cannot follow the captioner.
        TrainingError: its weights are damaged: it gives numbers that are no probabilities.
    """
    from laconic.export.onnx.files import models_of

    spec, lines = read_spec(packed), list[str]()
    length = MAX_LENGTH if options.max_length is None else options.max_length
    for name, model in models_of(packed.path, spec, length, options.int8):
        size = (folder / name).write_bytes(model.SerializeToString())
        lines.append(f"{name}: {size:,} bytes")
    spec.vocabulary.save(folder / "vocabulary.json")
    name, size = printable(packed.path.name), packed.path.stat().st_size
    return [*lines, f"{name}: {size:,} bytes; ONNX knows no sparse weights, so zeros are stored as all others are"]
