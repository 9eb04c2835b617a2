"""Plans of a few numbers for tests of what runs plans: every word depends on the image, none on the word before."""

import numpy as np

from laconic.runtime.operations import Place
from laconic.runtime.plan import Plan
from laconic.runtime.program import Builder

WORDS = ["<pad>", "<unk>", "<bos>", "<eos>", "a", "dog", "runs", "far", "away"]
CHANNELS, POSITIONS, SIDE = 5, 4, 2


def tiny_plan(side: int = 0) -> Plan:
    """Reads region features, or with `side` pixels, which it does not look at."""
    numbers = np.random.default_rng(3)
    builder = Builder()
    grid, pooled = builder.buffer(CHANNELS, "POSITIONS"), builder.buffer(CHANNELS, "IMAGES")
    seen, logits = builder.buffer(len(WORDS), "IMAGES"), builder.buffer(len(WORDS), "ROWS")
    nothing = builder.buffer(1, "ROWS", kept=True)
    weight = numbers.standard_normal((len(WORDS), CHANNELS)).astype(np.float32)
    bias = numbers.standard_normal(len(WORDS)).astype(np.float32)
    unread = np.ones((len(WORDS), 1), np.float32)
    builder.linear("images", Place(pooled), Place(seen), builder.matrix(weight))
    builder.linear("step", Place(nothing), Place(logits), builder.matrix(unread, bias), start="FROM_IMAGE", image=seen)
    special = {"pad": 0, "unk": 1, "bos": 2, "eos": 3}
    sizes = {"side": side, "channels": CHANNELS, "pooled_channels": CHANNELS, "positions": POSITIONS}
    return builder.finish(special | sizes | {"grid": grid, "pooled": pooled, "logits": logits}, WORDS)
