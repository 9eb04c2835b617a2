"""What the matrices of a model are multiplied with: means and second moments of their inputs.

    with InputMoments(weights) as seen:
        model(batch)
    seen["output.weight"].second()

It watches the matrix products and convolutions that PyTorch dispatches, not modules: a weight counts wherever it is
read, also as a column slice or outside its module's own `forward`. Knows nothing of what the moments are for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Samples that the prior counts for. Measured on TINY3 with three images: 100 and 2000 do worse on two others.
PRIOR = 500
LEAST_SPREAD = 1e-3  # of inputs about their mean, as a share of their mean square: below it there is only rounding
LEAST_PRIOR = 0.01  # share of the prior however many samples there are, so that the moments stay invertible

aten = torch.ops.aten


class _Sums(NamedTuple):
    """Over the inputs of one range of columns: samples, sum of x (n,), sum of x x^T (n, n)."""

    samples: int
    total: Tensor
    squares: Tensor


class Moments:
    """Moments of the inputs of one weight (outputs, inputs), kept apart for each range of columns read at once.

    A convolution's kernel (outputs, channels, k, k) counts as (outputs, channels * k * k).

    A few images show few directions of the input, and an input that they never show is not one that never comes.
    So both estimates are those under a prior of PRIOR samples: inputs of mean zero, uncorrelated, all alike.
    """

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self._sums: dict[tuple[int, int], _Sums] = {}

    def add(self, start: int, rows: Tensor) -> None:
        """rows (samples, n): inputs of the columns `start` to `start + n`."""
        rows = rows.float()
        block = (start, start + rows.shape[1])
        now = _Sums(len(rows), rows.sum(0), rows.t() @ rows)
        if block in self._sums:
            before = self._sums[block]
            now = _Sums(before.samples + now.samples, before.total + now.total, before.squares + now.squares)
        self._sums[block] = now

    def mean(self) -> Tensor:
        """(inputs,): E[x]; 0 where no input was seen."""
        first = next(iter(self._sums.values())).total
        total, samples = first.new_zeros(self.inputs), first.new_zeros(self.inputs)
        for (start, stop), sums in self._sums.items():
            total[start:stop] += sums.total
            samples[start:stop] += sums.samples
        return total / (samples + PRIOR)

    def second(self, about_mean: bool = False) -> Tensor:
        """(inputs, inputs): E[x x^T], or with `about_mean` E[(x - mean())(x - mean())^T].

        Positive definite; 0 between columns that are not read at once, the identity where nothing was seen.
        """
        matrix = next(iter(self._sums.values())).squares.new_zeros(self.inputs, self.inputs)
        for (start, stop), (samples, total, squares) in self._sums.items():
            seen = samples / (samples + PRIOR)
            block = squares / samples
            if about_mean:
                block = block - torch.outer(total, total) * (seen * (2 - seen) / samples**2)
            prior = max(1 - seen, LEAST_PRIOR)
            # of inputs that are always the same, what is left about their mean is rounding, and may be negative
            level = torch.maximum(block.diagonal().mean(), LEAST_SPREAD * squares.diagonal().mean() / samples)
            block = block * (1 - prior)
            block.diagonal().add_(prior * level)
            matrix[start:stop, start:stop] += block
        diagonal = matrix.diagonal()
        diagonal.copy_(torch.where(diagonal > 0, diagonal, 1.0))
        return matrix


class InputMoments(TorchDispatchMode, Mapping[str, Moments]):
    """While it is active, gathers the moments of `weights` (name -> parameter); a mapping of those that were seen.

    Not seen: weights read in another type (autocast), transposed or by rows, grouped and transposed convolutions.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._weights: dict[int, list[tuple[str, Tensor]]] = {}
        for name, weight in weights.items():
            self._weights.setdefault(weight.untyped_storage().data_ptr(), []).append((name, weight))
        self._moments: dict[str, Moments] = {}

    def __getitem__(self, name: str) -> Moments:
        return self._moments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is aten.mm.default:
            self._product(args[0], args[1])
        elif func is aten.addmm.default:
            self._product(args[1], args[2])
        elif func is aten.linear.default:  # under inference mode linear arrives whole
            self._product(args[0], args[1].t())
        elif func is aten.convolution.default:
            self._convolution(*args)
        return func(*args, **(kwargs or {}))

    def _product(self, x: Tensor, operand: Tensor) -> None:
        """x (..., n) @ operand (n, outputs), the transpose of a range of columns of a weight."""
        name, weight = self._find(operand)
        if weight is None or operand.shape[1] != len(weight):
            return
        inputs = weight[0].numel()
        along, across = operand.stride()
        if (along == 1 or len(operand) == 1) and (across == inputs or len(weight) == 1):
            start = int(operand.storage_offset() - weight.storage_offset())
            self._of(name, weight).add(start, x.flatten(0, -2))

    def _convolution(self, x: Tensor, kernel: Tensor, _: Tensor | None, *geometry: Any) -> None:
        stride, padding, dilation, transposed, _, groups = geometry
        name, weight = self._find(kernel)
        if weight is not None and weight.ndim == 4 and groups == 1 and not transposed:
            patches = F.unfold(x, weight.shape[2:], dilation, padding, stride)  # (images, inputs, places)
            self._of(name, weight).add(0, patches.transpose(1, 2).flatten(0, 1))

    def _find(self, operand: Tensor) -> tuple[str, Tensor | None]:
        """The weight that an operand is a view of."""
        for name, weight in self._weights.get(operand.untyped_storage().data_ptr(), ()):
            first = operand.storage_offset() - weight.storage_offset()
            if operand.dtype == weight.dtype and 0 <= first < weight.numel():
                return name, weight
        return "", None

    def _of(self, name: str, weight: Tensor) -> Moments:
        return self._moments.setdefault(name, Moments(weight[0].numel()))
