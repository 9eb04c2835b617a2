"""Large tensors element by element, a part at a time, so that what is computed from a part stays in the cache.

Knows nothing of masks or of what the elements mean.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PIECE = 1 << 17  # elements that a CPU works on at a time: 512 KiB of float32


def pieces(*tensors: Tensor, size: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape side by side, some rows (`size` elements, or PIECE) at a time on a CPU and whole elsewhere.

    What is computed from a piece stays in the cache. At full size every intermediate result would be paged in anew
    by the operating system, which costs several times the arithmetic.
    """
    first = tensors[0]
    rows = len(first)
    if first.device.type == "cpu":
        rows = max(1, (size or PIECE) * rows // max(1, first.numel()))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no element is infinite or not a number, in one pass: zero times any such is not a number."""
    sums = [torch.stack([(some * 0).sum() for (some,) in pieces(tensor)]).sum() for tensor in tensors]
    return not sums or bool(torch.stack(sums).sum().isfinite())
