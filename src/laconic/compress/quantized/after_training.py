"""Quantisation after training: every weight a whole multiple of its tensor's step, placed where it hurts least.

    steps = quantize(model, run, batches, bits=4.1)      # in place; name -> step

Three things beyond rounding, all from a few batches that the model is run on:
    - steps are allotted by sensitivity: how far the rounding of each tensor alone moves the outputs, to first order;
    - error feedback: the non-zeros of a row are rounded one after another, each making up for the errors before it
      as far as their inputs go together (Frantar et al. 2022, arXiv 2210.17323, on the non-zeros of sparse rows);
    - bias correction: the mean of what is left goes into the bias (Nagel et al. 2019, arXiv 1906.04721).
Zeros stay zero, and weights that round to zero join them. Equal input gives equal weights.

Knows nothing of files; of outputs only that adding a constant to a row changes nothing (a softmax follows).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from laconic.compress.modes import evaluated
from laconic.compress.quantized.moments import InputMoments, Moments
from laconic.errors import ConfigError, PruningError

PROBES = 8  # random directions of the outputs whose gradients tell the sensitivities; 64 give the same to 10 %
COARSEST = 0.5  # the largest step: a tensor that the batches hardly touch must not be ruined
ROOM = 2**22  # elements of the rows' own moments at a time
TRIALS = 8  # to find the steps for an error
MOST_BITS = 16  # codes must stay exact in float32
CLOSE = 0.9  # share of the allowed error that is used up well enough

Batch = TypeVar("Batch")


@torch.no_grad()
def quantize(
    model: nn.Module,
    run: Callable[[Batch], Tensor],
    batches: Sequence[Batch],
    *,
    bits: float | None = None,
    error: float | None = None,
) -> dict[str, float]:
    """Moves float32 parameters, in place, onto uniform grids; returns name -> step.

    Args:
        model: a finished one (no masks attached). It is in evaluation mode meanwhile.
        run: batch -> outputs (..., classes) of this model, computed in float32.
        batches: what to run on; a handful of images helps already, some hundred are plenty.
        bits: target; entropy (order 0, tensor by tensor) of the codes that are not zero, over the number of weights
            that were not zero before. 4.1 is some 6 % output error on TINY3.
        error: target instead of `bits`; relative L2 error of the outputs, each row less its mean. Measured on the last
            batch, which the feedback does not see unless it is the only one.

    The value of each parameter named in the result is code * step in float32, the code an integer, the step a float32
    number. Tied weights bear their first name. Left as they were, and not named: parameters that are zero throughout,
    that are not float32, or that do not move the outputs.

    Raises:
        ConfigError: for impossible targets, no batches, or outputs that are not finite or that no parameter moves.
        PruningError: where masks are still attached.
    """
    if (bits is None) == (error is None) or not 0 < (bits or error or 0) <= MOST_BITS:
        raise ConfigError(f"quantize: bits={bits}, error={error}; give one of them, greater than 0 (bits: up to 16)")
    if not batches:
        raise ConfigError("quantize: no batches; without any, let the file's plain rounding do it")
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        raise PruningError("quantize: masks are still attached; finalize the pruner first")
    with evaluated(model), _gradients(model):
        live = {name: p for name, p in model.named_parameters() if p.dtype == torch.float32 and bool(p.any())}
        effects = _effects(live, run, batches)
        if not effects:
            raise ConfigError("quantize: no parameter moves the outputs; `run` must return what this model computes")
        seen = InputMoments({name: live[name] for name in effects if live[name].ndim > 1})
        with seen:
            for batch in (batches[:-1] or batches) if error else batches:
                run(batch)
        weights = _Weights(model, {name: live[name] for name in effects}, seen)
        if error is None:
            return weights.place(_steps_for_bits(weights.originals, effects, bits or 0))
        return _place_within(weights, effects, error, _Shift(run, batches[-1]))


def entropy(codes: Tensor) -> float:
    """Bits of the codes that are not zero, each coded by its frequency among them (order 0)."""
    counts = torch.unique(codes[codes != 0], return_counts=True)[1].double()
    return float((counts * (counts.sum() / counts).log2()).sum())


def round_rows(weight: Tensor, second: Tensor, step: float) -> Tensor:
    """Codes of weight (rows, inputs) such that (w - q) second (w - q)^T of each row w is small; 0 where w is 0.

    `second` (inputs, inputs) is positive definite. Written as |R (w - q)|^2 with the Cholesky factor R of a row's own
    non-zeros, each code is the best one given those that follow it (Babai's nearest plane, which is what GPTQ does
    without inverting anything). Inputs of large moment come first, while the others can still make up for them.
    """
    order = second.diagonal().argsort(stable=True)
    weight, second = weight[:, order], second[order][:, order]
    codes = torch.zeros_like(weight)
    if 2 * int(weight.count_nonzero()) >= weight.numel():  # one factor serves all rows; zeros stay out of the feedback
        codes[:, order] = _nearest_planes(weight / step, second[None], weight != 0)
        return codes
    rows, columns = weight.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(weight))
    starts = counts.cumsum(0) - counts
    for some in _chunks(counts):
        place = torch.arange(int(counts[some].max()), device=weight.device)
        used = place < counts[some].unsqueeze(1)
        at = columns[(starts[some].unsqueeze(1) + place).clamp(max=len(columns) - 1)]
        row = some.unsqueeze(1).expand_as(at)
        own = second[at.unsqueeze(2), at.unsqueeze(1)] * (used.unsqueeze(2) & used.unsqueeze(1))
        own.diagonal(dim1=1, dim2=2).add_(~used)
        codes[row[used], order[at[used]]] = _nearest_planes(weight[row, at] / step, own, used)[used]
    return codes


def _nearest_planes(values: Tensor, second: Tensor, used: Tensor) -> Tensor:
    """Integers near `values` (rows, n) under `second` (rows or 1, n, n), from the last column to the first; 0 where
    not `used` (rows, n)."""
    factor = torch.linalg.cholesky(second).transpose(1, 2)
    factor = factor / factor.diagonal(dim1=1, dim2=2).unsqueeze(2)
    codes, errors = torch.zeros_like(values), torch.zeros_like(values)
    for i in reversed(range(values.shape[1])):
        made_up = (factor[:, i, i + 1 :] * errors[:, i + 1 :]).sum(1)
        codes[:, i] = torch.round(values[:, i] + made_up) * used[:, i]
        errors[:, i] = (values[:, i] - codes[:, i]) * used[:, i]
    return codes


def _chunks(counts: Tensor) -> Iterator[Tensor]:
    """Rows with non-zeros, those of about equal number together, as many as ROOM allows."""
    order = counts.argsort(stable=True, descending=True)
    sizes: list[int] = counts[order].tolist()
    start, end = 0, sum(size > 0 for size in sizes)
    while start < end:
        stop = min(end, start + max(1, ROOM // sizes[start] ** 2))
        # rows of less than half the length would mostly be padding
        while 2 * sizes[stop - 1] < sizes[start]:
            stop -= 1
        yield order[start:stop]
        start = stop


class _Shift:
    """How far the outputs have moved since this was made: relative L2 distance, each row less its mean."""

    def __init__(self, run: Callable[[Batch], Tensor], batch: Batch) -> None:
        self._run = lambda: _centred(run(batch))
        self._before = self._run()

    def __call__(self) -> float:
        return float((self._run() - self._before).norm() / self._before.norm())


class _Weights:
    """The parameters that are quantised, and all that is needed to do it again and again from their first values."""

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor], seen: Mapping[str, Moments]) -> None:
        self.parameters = parameters
        self.originals = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self.seen = seen
        self.biases = {name: bias for name in seen if (bias := _bias_of(model, name)) in parameters}

    def place(self, steps: dict[str, float]) -> dict[str, float]:
        """Puts the weights on the grids of these steps, and returns the steps."""
        left: dict[str, Tensor] = {}  # of each bias: the mean of what the rounding of its weights takes away
        for name in sorted(steps, key=lambda name: self.parameters[name].ndim == 1):  # biases last
            weight, step = self.originals[name], steps[name]
            if name in self.seen:
                flat, bias = weight.flatten(1), self.biases.get(name)
                codes = round_rows(flat, self.seen[name].second(about_mean=bias is not None), step)
                if bias is not None:
                    left[bias] = left.get(bias, 0) + (flat - codes * step) @ self.seen[name].mean()
                codes = codes.view_as(weight)
            else:
                codes = torch.round((weight + left.get(name, 0)) / step)
            self.parameters[name].copy_(codes * step + 0.0)  # no negative zeros
        return steps


def _place_within(
    weights: _Weights, effects: Mapping[str, float], error: float, shift: Callable[[], float]
) -> dict[str, float]:
    """Places the weights so that the outputs shift by `error` at most, and not much less."""
    # the tensors' own errors, added up as if they were independent
    scale = error / math.sqrt(sum(int(w.count_nonzero()) for w in weights.originals.values()))
    fits: dict[str, float] = {}
    largest = 0.0
    for _ in range(TRIALS):
        steps = weights.place(_steps(weights.originals, effects, scale))
        found = shift()
        if found <= error and found >= largest:
            fits, largest = steps, found
            if found >= CLOSE * error:
                return steps
        scale *= (1 + CLOSE) / 2 * error / max(found, error / 4)
    if not fits:
        raise ConfigError(f"quantize: error={error} is below what float32 allows here; give more")
    return weights.place(fits)


def _steps(originals: Mapping[str, Tensor], effects: Mapping[str, float], scale: float) -> dict[str, float]:
    """Steps that give each tensor an error in proportion to its non-zeros.

    That is the least error for a number of bits, as long as error^2 = effect * step^2 adds up over tensors and halving
    a step costs one bit for each non-zero.
    """
    steps = {}
    for name, effect in effects.items():
        values = originals[name][originals[name] != 0]
        step = min(scale * math.sqrt(len(values) / effect), COARSEST * _rms(values))
        steps[name] = float(torch.tensor(step, dtype=torch.float32))
    return steps


def _steps_for_bits(originals: Mapping[str, Tensor], effects: Mapping[str, float], bits: float) -> dict[str, float]:
    """The finest steps whose plainly rounded codes stay within `bits` per non-zero; feedback changes them little."""
    values = {name: originals[name][originals[name] != 0] for name in effects}
    non_zeros = sum(map(len, values.values()))

    def spent(scale: float) -> float:
        steps = _steps(values, effects, scale)
        return sum(entropy(torch.round(values[name] / step)) for name, step in steps.items()) / non_zeros

    low, high = -60.0, 30.0  # log2 of the scale
    if spent(2.0**high) > bits:
        least = math.ceil(100 * spent(2.0**high)) / 100
        raise ConfigError(f"quantize: bits={bits} would ruin the model; give at least {least}")
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(2.0**middle) <= bits else (middle, high)
    return _steps(values, effects, 2.0**high)


def _effects(
    parameters: Mapping[str, Tensor], run: Callable[[Batch], Tensor], batches: Sequence[Batch]
) -> dict[str, float]:
    """For each parameter that moves the outputs: their squared relative error over the squared step, it alone rounded.

    Rounding errors of the non-zeros, independent and of variance step^2 / 12, move the outputs y by J e with
    E|J e|^2 = step^2 / 12 * |J|^2. Signs s at random give |J|^2 = E|J^T s|^2: one gradient tells of all parameters.
    """
    device = next(iter(parameters.values())).device if parameters else torch.device("cpu")
    generator = torch.Generator(device).manual_seed(0)
    effects, norm = dict.fromkeys(parameters, 0.0), 0.0
    for batch in islice(cycle(batches), PROBES):
        with torch.enable_grad():
            outputs = _centred(run(batch))
            if not outputs.requires_grad:
                return {}
            signs = 2 * torch.randint(2, outputs.shape, generator=generator, device=device) - 1
            gradients = torch.autograd.grad((outputs * signs).sum(), list(parameters.values()), allow_unused=True)
        norm += float(outputs.square().sum())
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            if gradient is not None:
                effects[name] += float((gradient * (parameter != 0)).square().sum()) / 12
    if not math.isfinite(norm) or not all(map(math.isfinite, effects.values())):
        raise ConfigError("quantize: the outputs are not finite; the model cannot be compared with itself")
    return {name: effect / norm for name, effect in effects.items() if effect > 0 and norm > 0}


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _centred(outputs: Tensor) -> Tensor:
    return outputs - outputs.mean(-1, keepdim=True)


def _bias_of(model: nn.Module, name: str) -> str:
    """Name of the bias that is added to what a weight gives, whether or not there is one."""
    module, _, attribute = name.rpartition(".")
    bias = attribute.replace("weight", "bias")
    if isinstance(model.get_submodule(module), nn.LSTM | nn.LSTMCell):
        bias = bias.replace("_hh", "_ih")  # only their sum counts, and folding leaves it in the first
    return f"{module}.{bias}" if module else bias


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """With gradients of all float parameters to be had."""
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
