"""How large a captioner's file is going to be at a sparsity, and which sparsity makes it as large as wanted.

    size_at = sizes(captioner, bits=4)
    sparsity_for(size_at, 1_000_000)

Nothing is trained: the captioner is pruned by magnitude, rounded and packed. Learned steps round more weights to zero,
so a trained file is smaller; `recipes.compressing` measures by how much.
"""

import copy
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import save, shorten_floats
from laconic.compress.masked.magnitude import Magnitude
from laconic.compress.masked.pruner import Pruner
from laconic.compress.quantized.aware import Quantizer
from laconic.errors import ConfigError
from laconic.recipes.plan import part
from laconic.spec.manifest import MODEL

MOST_SPARSE = 0.995  # beyond it captioners say the same of every photo
CLOSE = 0.002  # of the budget: near enough for a predicted size


def sizes(captioner: ImageCaptioner, bits: int, where: str = "all") -> Callable[[float], int]:
    """`predicted_bytes` by sparsity, each worked out once: that takes seconds."""
    return functools.cache(lambda sparsity: predicted_bytes(captioner, sparsity, bits, where))


def predicted_bytes(captioner: ImageCaptioner, sparsity: float, bits: int, where: str = "all") -> int:
    """Size of the file that a captioner makes once so much of it is pruned and quantised; nothing is trained.

    Which weights go changes a size by some per cent: masks cost by their number, and values by their bits.
    """
    trial = copy.deepcopy(captioner)
    chosen = part(where)  # type: ignore[arg-type]
    Pruner(trial, Magnitude(sparsity, "distribution"), where=chosen, frozen="prune").finalize()
    quantizer = Quantizer(trial, bits, where=chosen)
    quantizer.finalize()
    steps = quantizer.steps()
    shorten_floats(trial, steps)
    with tempfile.TemporaryDirectory() as folder:
        return save(trial, Path(folder) / MODEL, "trained", steps=steps)


def sparsity_for(size_at: Callable[[float], int], budget: float) -> float:
    """The least sparsity at which a predicted size fits into a budget of bytes. ConfigError where none does.

    size_at: of a captioner, see `sizes`.
    """
    least = size_at(MOST_SPARSE)
    if least > budget:
        raise ConfigError(
            f"compress: {budget:,.0f} bytes are too few: with {MOST_SPARSE:.1%} of its weights gone this captioner has "
            f"{least:,} bytes; give more, fewer bits, or a smaller captioner"
        )
    low, high = 0.0, MOST_SPARSE
    largest, smallest = size_at(low), least
    if largest <= budget:
        return low
    while True:  # a size is nearly a straight line over the sparsity, so a few trials find it
        share = (largest - budget * (1 - CLOSE / 2)) / (largest - smallest)
        middle = low + min(max(share, 0.02), 0.98) * (high - low)
        size = size_at(middle)
        if size <= budget and (size >= budget * (1 - CLOSE) or high - low < CLOSE / 10):
            return middle
        if size <= budget:
            high, smallest = middle, size
        else:
            low, largest = middle, size
