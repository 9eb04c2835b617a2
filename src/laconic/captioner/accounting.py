"""What a captioner costs: weights, non-zeros, file sizes as the paper counts them, and operations for a caption.

Everything is counted on the model itself: parameters by walking it, operations by watching it run. Knows no
architecture by name, so a new captioner or encoder needs no line here.

The rules, which decide every number:

* weights      all parameters, biases and norms included, tied ones once; *prunable* are the matrices (two or more
               dimensions) that `laconic.compress` would mask. Table 2 of arXiv 2110.03298 counts the former, its
               Figs. 3 and 4 the latter.
* operations   a multiply-add is 2. Matrix products and convolutions count; look-ups, biases, norms, activations,
               softmax and search count nothing. A product with a weight counts its non-zeros only, as a sparse
               kernel would execute it; products of two activations count whole.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from laconic import store
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.compress.sites import prunable
from laconic.errors import PruningError
from laconic.models.layers import Features
from laconic.spec.model import REGIONS

REGIONS_PER_IMAGE = 36  # of an image, as of the bottom-up features with a fixed number
WORDS = 9  # of the caption whose operations are counted, as in the paper's Table 4
COO_INDEX_BYTES = 16  # row and column as int64, PyTorch's COO layout
_ATEN = torch.ops.aten
# PyTorch's table lacks the attention kernel of CPUs, which takes the arguments of that of GPUs
RULES = {
    **flop_registry,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[_ATEN._scaled_dot_product_flash_attention],
}


@dataclass(frozen=True)
class Weights:
    """Parameters of a model or of a part of it; `prunable*` are those of its matrices alone."""

    total: int
    non_zeros: int
    prunable: int
    prunable_non_zeros: int

    @property
    def sparsity(self) -> float:
        """Share of zeros among the prunable weights."""
        return 1 - self.prunable_non_zeros / self.prunable if self.prunable else 0.0


def count_weights(model: nn.Module) -> Weights:
    """Counts the parameters of a model; tied ones once, buffers not."""
    parameters = list(model.parameters())
    try:
        matrices = [getattr(*sites[0]) for sites in prunable(model).values()]
    except PruningError:  # nothing but biases and norms
        matrices = []
    return Weights(
        total=sum(p.numel() for p in parameters),
        non_zeros=sum(int(torch.count_nonzero(p)) for p in parameters),
        prunable=sum(m.numel() for m in matrices),
        prunable_non_zeros=sum(int(torch.count_nonzero(m)) for m in matrices),
    )


def non_zeros(captioner: ImageCaptioner) -> dict[str, int]:
    """Parameters and non-zeros of encoder and decoder: "encoder", "encoder_weights", "decoder", "decoder_weights"."""
    counts: dict[str, int] = {}
    for part in ("encoder", "decoder"):
        weights = count_weights(captioner.get_submodule(part))
        counts |= {part: weights.non_zeros, f"{part}_weights": weights.total}
    return counts


def matrices(path: Path) -> list[dict[str, Any]]:
    """Name, shape and non-zeros of each matrix in a packed file, in the order of the model; tied ones once."""
    return [
        {"name": tensor.name, "shape": list(tensor.shape), "non_zeros": tensor.non_zeros}
        for tensor in store.inspect(path).tensors
        if len(tensor.shape) > 1 and tensor.tied_to is None
    ]


def coo_bytes(non_zeros: int, dense: int, value_bytes: int = 4) -> int:
    """Bytes of the paper's sparse checkpoints, container apart: 16 for each index, and the values.

    Args:
        non_zeros: of the matrices, stored as COO.
        dense: all other stored numbers (biases, norms, positional table).
        value_bytes: 4 for float32, 2 for float16.
    """
    return non_zeros * (COO_INDEX_BYTES + value_bytes) + dense * value_bytes


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one caption: of the encoder for one image, of the captioner for one search."""

    encoder: int
    decoder: int

    @property
    def total(self) -> int:
        return self.encoder + self.decoder


def caption_operations(captioner: ImageCaptioner, words: int = WORDS) -> Operations:
    """Operations for one image and a greedy caption of `words` words: words + 1 steps, the last gives the end.

    Which words does not matter, so none are searched for. A captioner of region
    features is given REGIONS_PER_IMAGE of them, and its encoder's work is 0.
    """
    captioner.eval()
    with torch.inference_mode():
        with OperationCounter(captioner) as encoder:
            features = _features(captioner)
        with OperationCounter(captioner) as decoder:
            decode_steps(captioner.decoder, features, words + 1)
    return Operations(encoder.count, decoder.count)


def _features(captioner: ImageCaptioner) -> Features:
    """Those of a black image, or of REGIONS_PER_IMAGE regions that are each the whole of it."""
    device = next(captioner.parameters()).device
    config = captioner.config.encoder
    if config.name != REGIONS:
        return captioner.encode(torch.zeros(1, config.size, config.size, 3, dtype=torch.uint8, device=device))
    grid = torch.zeros(1, REGIONS_PER_IMAGE, config.channels, device=device)
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(1, REGIONS_PER_IMAGE, 4)
    return Features(grid, grid.mean(1), boxes)


def decode_steps(decoder: Any, features: Features, steps: int) -> None:
    """Starts a captioner (protocol of laconic.decode.search) on one image and feeds it any word at each step."""
    state = decoder.start(features)
    for _ in range(steps):
        _, _, state = decoder.step(state, np.ones(1, np.int64), 1)


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of everything that runs within the block, in `count`.

    Products are recognised by RULES, PyTorch's own table of operators and one more. Where one operand is a weight of
    `model`, or a view of one, the product is scaled by the share of non-zeros in that view: each weight takes part in a
    product equally often. A weight that is copied before use (another type, another layout) counts whole.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self._weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._densities: dict[tuple[Any, ...], tuple[int, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = RULES.get(func._overloadpacket)
        if rule is None:
            with self:  # an operator made of others, such as linear, is counted by its parts
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        out = func(*args, **kwargs)
        operations = rule(*args, **kwargs, out_val=out)
        for operand in args:
            if self._is_weight(operand):
                non_zeros, size = self._density(operand)
                operations = operations * non_zeros // size
        self.count += operations
        return out

    def _is_weight(self, operand: object) -> bool:
        """A matrix of the model; what is added to a product, such as a bias, is none."""
        return (
            isinstance(operand, Tensor) and operand.ndim > 1 and operand.untyped_storage().data_ptr() in self._weights
        )

    def _density(self, weight: Tensor) -> tuple[int, int]:
        key = (weight.data_ptr(), tuple(weight.shape), weight.stride())
        if key not in self._densities:
            self._densities[key] = (int(torch.count_nonzero(weight)), max(1, math.prod(weight.shape)))
        return self._densities[key]
