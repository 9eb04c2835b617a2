"""What a captioner says and takes as ONNX files, beside the engine; greedy search on photos of Flickr8k.

    python benchmarks/onnx_files.py --csv results/onnx.csv

Equal is a caption with all of its words. The exported files are compared, and what ONNX Runtime's own quantisation
makes of the float32 ones: of their matrix products, and of their convolutions, too. Times are CPU seconds of one image
at a time on one thread, medians of interleaved rounds over the first photos. (Named onnx.py, this file would be what
`import onnx` finds.)
"""

import argparse
import csv
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

import laconic
from laconic import data
from laconic.bench.processor import level, processor
from laconic.bench.timing import interleaved
from laconic.captioner.engine import Engine
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.decode.search import Decoding
from laconic.export.onnx.looping import greedy
from laconic.export.onnx.modules import parts_of
from laconic.export.onnx.rules import rules_of
from laconic.export.table import Options, export

LENGTH, TIMED = 20, 8
BARS = {"greedy.onnx": 1.0, "greedy.int8.onnx": 0.95}
BATCHES = (1, 50)
QUANTIZED = {
    "quantize_dynamic of products": ["MatMul", "Gemm", "Gather"],
    "quantize_dynamic of products and convolutions": ["MatMul", "Gemm", "Gather", "Conv"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captioner", nargs="?", default=SMALLEST, help="a packed captioner of photos, or such a name")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    engine = laconic.load(given.captioner, threads=1)
    root = Path(os.environ.get("LACONIC_SHARED", "../shared")) / "data" / "flickr8k"
    examples = data.load("flickr8k", root, "val")
    pixels = np.stack([data.resize(examples[i].pixels(), engine.config.encoder.size) for i in range(given.photos)])
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as place:
        folder = Path(place) / "onnx"
        export(packed_file(given.captioner), folder, "onnx", Options(max_length=LENGTH, int8=True))
        for name, kinds in QUANTIZED.items():
            _quantized(given.captioner, folder, name, kinds)
        rows = list(compared(engine, folder, pixels, given.rounds))
    same = {
        "captioner": given.captioner, "packed_bytes": packed_file(given.captioner).stat().st_size,
        "photos": len(pixels), "processor": processor(), "level": level(), "onnxruntime": onnxruntime.__version__,
        "command": " ".join(["python", *sys.argv]),
    }  # fmt: skip
    with given.csv.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, [*rows[0], *same], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | same for row in rows)
    for row in rows:
        if row["bar"] and min(row[f"equal_at_{batch}"] for batch in BATCHES) < row["bar"] * len(pixels):
            sys.exit(f"{row['file']}: fewer captions are equal than {row['bar']:.0%}")


def compared(engine: Engine, folder: Path, pixels: NDArray[np.uint8], rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each file; captions and times are of those that search."""
    expected = [best[0].tokens for best in engine.search(pixels, Decoding(beam=1, max_length=LENGTH))]
    paths = sorted(folder.glob("*.onnx"), key=lambda path: ("quantize" in path.name, "int8" in path.name, path.name))
    sessions = {path.stem: _session(path) for path in paths if path.name not in _parts()}
    ways: dict[str, Any] = {name: partial(_each, session, pixels[:TIMED]) for name, session in sessions.items()}
    ways["engine"] = partial(_each_by_engine, engine, pixels[:TIMED])
    for way in ways.values():
        way()
    seconds = interleaved(ways, rounds)
    for path in paths:
        row: dict[str, Any] = {
            "file": path.stem if "quantize" in path.name else path.name,
            "bytes": path.stat().st_size,
        }
        session = sessions.get(path.stem)
        for batch in BATCHES:
            row[f"equal_at_{batch}"] = "" if session is None else _equal(session, pixels, expected, batch)
        row["bar"] = BARS.get(path.name, "")
        row["ms"] = "" if session is None else f"{1e3 * seconds[path.stem] / TIMED:.2f}"
        row["engine_ms"] = "" if session is None else f"{1e3 * seconds['engine'] / TIMED:.2f}"
        print(*(f"{key}={value}" for key, value in row.items()), flush=True)
        yield row


def _parts() -> set[str]:
    """Files of an export that do not search."""
    return {part + ending for part in ("encoder", "step") for ending in (".onnx", ".int8.onnx")}


def _equal(session: Any, pixels: NDArray[np.uint8], expected: list[tuple[int, ...]], batch: int) -> int:
    """How many captions have the same words, of so many images at once."""
    found: list[tuple[int, ...]] = []
    for start in range(0, len(pixels), batch):
        (tokens,) = session.run(["tokens"], {"pixels": pixels[start : start + batch]})
        found += [tuple(token for token in said if token not in (0, 3)) for said in tokens.tolist()]
    return sum(map(tuple.__eq__, found, expected))


def _each(session: Any, pixels: NDArray[np.uint8]) -> None:
    for image in pixels:
        session.run(["tokens"], {"pixels": image[None]})


def _each_by_engine(engine: Engine, pixels: NDArray[np.uint8]) -> None:
    for image in pixels:
        engine.search(image[None], Decoding(beam=1, max_length=LENGTH))


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _quantized(captioner: str, folder: Path, name: str, kinds: list[str]) -> None:
    """The search made of what ONNX Runtime's dynamic quantisation makes of encoder and step."""
    module = laconic.load(captioner, backend="torch")
    parts = parts_of(module)
    models = []
    for part in ("encoder", "step"):
        place = folder / f"{part}.tmp"
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)  # advice to shrink files first
        quantize_dynamic(
            folder / f"{part}.onnx", place, op_types_to_quantize=kinds, weight_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        logging.disable(level)
        models.append(onnx.load(place))
    rules = rules_of(module.vocabulary, LENGTH)
    onnx.save(greedy(*models, parts.of_images, parts.of_captions, rules), folder / f"{name}.onnx")


if __name__ == "__main__":
    main()
