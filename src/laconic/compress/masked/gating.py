"""The arithmetic of masks and their gates, element by element: what Supermask Pruning adds to a training step.

Each function is written in PyTorch. Large float32 tensors on a CPU take the kernels of the native library instead,
where it is there (gating.h): the same numbers up to rounding, in one pass over memory.

Knows nothing of modules, losses or optimizers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from laconic.compress.piecewise import all_finite, pieces
from laconic.machine.noise import LEVELS, noise16, words_for
from laconic.machine.threads import in_threads, run
from laconic.native.library import library

BLOCK = 1 << 20  # elements that a thread draws at a time
LEAST = 1 << 15  # elements from which on a kernel pays

_F, _H, _I, _B = torch.float32, torch.bfloat16, torch.int16, torch.bool
KERNELS = {  # operation and types of its tensors: name in gating.h
    ("mix", torch.int64, torch.int64): "mix",
    ("draw", _F, _I, _B): "draw",
    ("multiply", _F, _B, _F): "multiply_float",
    ("multiply", _F, _B, _H): "multiply_to_bfloat16",
    ("multiply", _H, _B, _F): "multiply_bfloat16",
    ("gradients", _F, _F, _F, _B, _F, _F): "gradients_float",
    ("gradients", _H, _F, _F, _B, _F, _F): "gradients_bfloat16",
    ("add_slope", _F, _F): "add_slope",
    ("count_open", _F): "count_open",
}


def draw_bernoulli(gates: Tensor, seed: int, out: Tensor | None = None) -> Tensor:
    """Independent 0/1 draws as bool, true with probability sigmoid(gates); the same for the same seed.

    Written into `out` where that is given.
    """
    out = torch.empty_like(gates, dtype=torch.bool) if out is None else out
    first = (
        int(np.random.SeedSequence(seed % 2**64).generate_state(1, np.uint64)[0]) >> 2
    )  # int64, and far from its end
    blocks = list(pieces(out, gates, size=BLOCK))
    counters = torch.arange(words_for(blocks[0][0].shape), device=gates.device)

    def draw(index: int) -> None:
        drawn, some = blocks[index]
        noise = noise16(mixed(counters, first + index * len(counters)), some.shape)
        if not _natively("draw", some, noise, out=[drawn]):
            for result, gate, level in pieces(drawn, some, noise):
                # level + 1/2 < LEVELS p - LEVELS / 2; float32 is compared into bool four times as slowly on a CPU
                lack = level.to(gate.dtype).sub_(torch.sigmoid(gate), alpha=LEVELS)
                result.copy_(lack.lt_(-(LEVELS + 1) / 2))

    if len(blocks) > 1 and library() is not None:
        in_threads(draw, len(blocks))
    else:  # PyTorch's operations have threads of their own
        for index in range(len(blocks)):
            draw(index)
    return out


def mixed(counters: Tensor, first: int) -> Tensor:
    """64 random bits for each of the int64 counters, taken from `first` on: SplitMix64 (Steele, Lea, Flood 2014).

    Of such noise, threads can draw parts side by side, and it is the same on every device.
    """
    words = torch.empty_like(counters)
    if not _natively("mix", counters, out=[words], scalars=[first]):
        for some, counter in pieces(words, counters):
            torch.mul(counter + first, _signed(0x9E3779B97F4A7C15), out=some)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
                some.bitwise_xor_((some >> shift).bitwise_and_((1 << 64 - shift) - 1)).mul_(_signed(factor))
    return words


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return word - (word >> 63 << 64)


def count_open(gates: Tensor) -> Tensor:
    """Number of gates above zero, a float64 scalar: float32 stops counting at 2 ** 24."""
    if found := _natively("count_open", gates):
        return torch.tensor(sum(found), dtype=torch.float64)
    counts = [
        torch.gt(some, 0, out=torch.empty_like(some)).sum(-1).sum(dtype=torch.float64) for (some,) in pieces(gates)
    ]
    return torch.stack(counts).sum()


def multiply(x: Tensor, keep: Tensor, out: Tensor) -> Tensor:
    """out = x * keep, in the type of `out`."""
    if not _natively("multiply", x, keep, out=[out]):
        wide = torch.promote_types(x.dtype, out.dtype)
        for result, some, kept in pieces(out, x, keep):
            factor = kept.view(torch.uint8).to(wide)  # bool itself is converted element by element
            torch.mul(some.to(wide), factor, out=result)
    return out


def straight_through(
    grad: Tensor,
    weight: Tensor,
    gates: Tensor,
    keep: Tensor,
    grad_weight: Tensor | None,
    grad_gates: Tensor | None,
    slope: bool,
) -> None:
    """Writes the gradients of weight * keep into `grad_weight` and `grad_gates`, None where one is not wanted.

    grad_weight = grad * keep; grad_gates = grad * weight, times the sigmoid's slope if `slope`.
    """
    wanted = [tensor for tensor in (grad_weight, grad_gates) if tensor is not None]
    if slope and _natively("gradients", grad, weight, gates, keep, out=wanted):  # a kernel for both at once
        return
    if grad_weight is not None:
        multiply(grad, keep, grad_weight)
    if grad_gates is not None:
        for result, above, some, gate in pieces(grad_gates, grad, weight, gates):
            product = (above.to(some.dtype) * some).to(gate.dtype)
            result.copy_(sigmoid_slope(gate, product) if slope else product)


def sigmoid_slope(gates: Tensor, grad: Tensor) -> Tensor:
    """grad * s(G) (1 - s(G)), taken at -|G|, where it is the same: 1 - s(G) has no digits left where s(G) is near 1."""
    return torch.ops.aten.sigmoid_backward(grad, gates.abs().neg_().sigmoid_())  # type: ignore[no-any-return]


def add_slope(gates: Tensor, factor: Tensor, grad: Tensor) -> bool:
    """grad += factor * s(G) (1 - s(G)), and whether all of it is finite then; factor is a scalar."""
    on_cpu = gates.device.type == "cpu"  # a GPU would have to be waited for
    if on_cpu:
        scalars = [factor.item()]
        if finite := _natively("add_slope", gates, out=[grad], scalars=scalars):
            return all(finite)
    factor = factor.to(gates.dtype)
    for result, some in pieces(grad, gates):
        result.add_(sigmoid_slope(some, factor.expand_as(some)))
    return all_finite([grad])


def _natively(operation: str, *tensors: Tensor, out: Sequence[Tensor] = (), scalars: Sequence[Any] = ()) -> list[Any]:
    """Runs the kernel of an operation: what it returned for each part; an empty list where none is for such tensors."""
    tensors = *tensors, *out
    kernel = KERNELS.get((operation, *(tensor.dtype for tensor in tensors)))
    if kernel is None or tensors[0].numel() < LEAST or not all(_plain(t, tensors[0].shape) for t in tensors):
        return []
    found = library()
    if found is None:
        return []
    returned = run(getattr(found, f"gating_{kernel}"), tensors, scalars)
    for tensor in out:  # autograd has to learn that what it may have saved is overwritten
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
    return returned


def _plain(tensor: Tensor, shape: torch.Size) -> bool:
    """Whether a tensor is numbers of that shape in a row, here: no subclass that has them elsewhere."""
    ordinary = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"
    return ordinary and tensor.shape == shape and tensor.is_contiguous() and not torch.compiler.is_compiling()
