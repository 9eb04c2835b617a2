"""A captioner's two modules in ONNX Runtime and OpenVINO, dense, float32 and int8; the search is laconic's.

ONNX files are made by PyTorch's exporter in a temporary folder. int8 is ONNX Runtime's dynamic quantisation of the
matrix products: int8 weights, activations quantised as they come; convolutions stay float32.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from laconic.bench.processor import flags
from laconic.bench.rivals import Search, Stepper
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.steps import Step, Tensors, modules_of, parts_of
from laconic.decode.search import decode
from laconic.models.layers import Features
from laconic.spec.tokens import special_ids

OPSET = 17
Run = Callable[..., Tensors]  # tensors to tensors


class Files(NamedTuple):
    """The ONNX files of both modules."""

    start: Path
    step: Path


def onnx_runtime(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """ONNX Runtime, float32."""
    return _search(captioner, given, _onnx_session, quantized=False)


def onnx_runtime_int8(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """ONNX Runtime, int8."""
    return _search(captioner, given, _onnx_session, quantized=True)


def openvino(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """OpenVINO, float32."""
    return _search(captioner, given, _openvino_model, quantized=False)


def openvino_int8(captioner: ImageCaptioner, given: Features | Tensor) -> Search:
    """OpenVINO, int8."""
    return _search(captioner, given, _openvino_model, quantized=True)


def _search(
    captioner: ImageCaptioner, given: Features | Tensor, open_: Callable[[Path], Run], quantized: bool
) -> Search:
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as folder:
        files, step = export(captioner, given, Path(folder))
        if quantized:
            files = Files(*(_quantized(file) for file in files))
        stepper = Stepper(open_(files[0]), open_(files[1]), step)
    special = special_ids(captioner.vocabulary)
    return lambda decoding: decode(stepper, given, decoding, special)


def export(captioner: ImageCaptioner, given: Features | Tensor, folder: Path) -> tuple[Files, Step]:
    """Writes both modules as ONNX files; numbers of rows, images and words may change from call to call."""
    start, step = modules_of(captioner, given)
    files = Files(folder / "start.onnx", folder / "step.onnx")
    parts = parts_of(given)
    with torch.inference_mode():
        tensors = (*start(*parts), *step.empty(len(given)))
    memory, rows = tensors[: step.memory], tensors[step.memory :]
    _write(start, parts, {}, files.start)
    # one row more than there are images: an exporter takes equal numbers for one
    image = torch.tensor([0, *range(len(given))])
    examples = (image, image, torch.tensor([0]), *memory, *(part.index_select(0, image) for part in rows))
    changing: dict[int, dict[int, str]] = {0: {0: "rows"}, 1: {0: "rows"}}
    for place, part in enumerate(rows, 3 + len(memory)):
        changing[place] = {0: "rows", **({2: "words"} if part.ndim == 4 else {})}
    _write(step, examples, changing, files.step)
    return files, step


def _write(module: nn.Module, examples: Tensors, changing: dict[int, dict[int, str]], path: Path) -> None:
    names = [f"x{place}" for place in range(len(examples))]
    axes = {names[place]: sides for place, sides in changing.items()}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter that needs no further packages
        plain = tuple(example.clone() for example in examples)  # no tensors of inference mode
        torch.onnx.export(
            module, plain, str(path), input_names=names, dynamic_axes=axes, opset_version=OPSET, dynamo=False
        )  # fmt: skip


def _quantized(path: Path) -> Path:
    """Weights of 7 bits where the processor's 8-bit products would overflow, as ONNX Runtime advises."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made, level = path.with_suffix(".int8.onnx"), logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to shrink files first
    try:
        quantize_dynamic(
            path, made, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True,
            reduce_range="vnni" not in flags(), extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
    finally:
        logging.disable(level)
    return made


def _onnx_session(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}  # those that nothing reads are gone

    def run(*tensors: Tensor) -> Tensors:
        given = {f"x{place}": tensor.numpy() for place, tensor in enumerate(tensors) if f"x{place}" in names}
        return _tensors(session.run(None, given))

    return run


def _openvino_model(path: Path) -> Run:
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"
    }  # fmt: skip
    compiled: Any = openvino.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    names = {name for one in compiled.inputs for name in one.names}

    def run(*tensors: Tensor) -> Tensors:
        given = {f"x{place}": tensor.numpy() for place, tensor in enumerate(tensors) if f"x{place}" in names}
        found = request.infer(given, share_inputs=True)
        return _tensors([found[output] for output in compiled.outputs])

    return run


def _tensors(arrays: list[np.ndarray]) -> Tensors:
    return tuple(map(torch.from_numpy, arrays))
