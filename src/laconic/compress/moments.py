"""What the matrices of a model are multiplied with: means and second moments of their inputs.

    with InputMoments(weights) as seen:
        model(batch)
    seen["output.weight"].second()

It watches the matrix products and convolutions that PyTorch dispatches, not modules: a weight counts wherever it is
read, also as a column slice or outside its module's own `forward`. Knows nothing of what the moments are for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Moments:
    """Sums over the inputs of one weight (outputs, inputs), kept apart for each range of columns that is read at once.

    A convolution's kernel (outputs, channels, k, k) counts as (outputs, channels * k * k).
    """

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self._sums: dict[tuple[int, int], tuple[int, Tensor, Tensor]] = {}

    def add(self, start: int, rows: Tensor) -> None:
        """rows (samples, n): inputs of the columns start to start + n."""
        rows = rows.float()
        block = (start, start + rows.shape[1])
        count, total, squares = self._sums.get(block, (0, 0, 0))
        self._sums[block] = (count + len(rows), total + rows.sum(0), squares + rows.t() @ rows)

    def mean(self) -> Tensor:
        """(inputs,): E[x]; 0 where no input was seen."""
        device = next(iter(self._sums.values()))[1].device
        total, count = torch.zeros(self.inputs, device=device), torch.zeros(self.inputs, device=device)
        for (start, stop), (samples, summed, _) in self._sums.items():
            total[start:stop] += summed
            count[start:stop] += samples
        return total / count.clamp(min=1)

    def second(self, centred: bool = False) -> Tensor:
        """(inputs, inputs): E[x x^T], or the covariance; 0 between columns that are not read at once."""
        matrix = next(iter(self._sums.values()))[2].new_zeros(self.inputs, self.inputs)
        for (start, stop), (samples, summed, squares) in self._sums.items():
            block = squares / samples
            if centred:
                block = block - torch.outer(summed, summed) / samples**2
            matrix[start:stop, start:stop] += block
        return matrix


class InputMoments(TorchDispatchMode, Mapping[str, Moments]):
    """While it is active, gathers the moments of `weights` (name -> parameter); a mapping of those that were seen.

    Not seen: weights read in another type (autocast), transposed ones, grouped and transposed convolutions.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._weights: dict[int, list[tuple[str, Tensor]]] = {}
        for name, weight in weights.items():
            self._weights.setdefault(weight.untyped_storage().data_ptr(), []).append((name, weight))
        self._moments: dict[str, Moments] = {}

    def __getitem__(self, name: str) -> Moments:
        return self._moments[name]

    def __iter__(self) -> Any:
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
        elif func is aten.linear.default:
            self._product(args[0], args[1].t())
        elif func is aten.convolution.default:
            self._convolution(*args)
        return func(*args, **(kwargs or {}))

    def _find(self, operand: Tensor) -> tuple[str, Tensor] | None:
        for name, weight in self._weights.get(operand.untyped_storage().data_ptr(), ()):
            first = operand.storage_offset() - weight.storage_offset()
            if operand.dtype == weight.dtype and 0 <= first < weight.numel():
                return name, weight
        return None

    def _product(self, x: Tensor, operand: Tensor) -> None:
        """x (..., k) @ operand (k, n), a transposed slice of a weight."""
        found = self._find(operand)
        if found is None:
            return
        name, weight = found
        inputs = weight[0].numel()
        along, across = operand.stride()
        if (along != 1 and operand.shape[0] > 1) or (across != inputs and operand.shape[1] > 1):
            return
        start = (operand.storage_offset() - weight.storage_offset()) % inputs
        self._moments.setdefault(name, Moments(inputs)).add(start, x.flatten(0, -2))

    def _convolution(self, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, *rest: Any) -> None:
        transposed, _, groups = rest
        found = self._find(weight)
        if found is None or transposed or groups != 1 or weight.ndim != 4:
            return
        patches = F.unfold(x, weight.shape[2:], dilation, padding, stride)  # (images, inputs, places)
        self._moments.setdefault(found[0], Moments(weight[0].numel())).add(0, patches.transpose(1, 2).flatten(0, 1))
