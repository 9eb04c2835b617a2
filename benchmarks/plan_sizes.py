"""How large plans are, for what is sent to a browser or built into an application.

    python benchmarks/plan_sizes.py --csv results/plan_sizes.csv

Of MobileNet-V2 at 224 pixels and Soft-Attention with 2,600 words, the decoder 95 % sparse, random weights.
"""

import argparse
import csv
import gzip
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import random_captioners

from laconic import store
from laconic.captioner import packing
from laconic.runtime.planning import make_plan

ENCODERS = {"dense": 0.0, "80 % sparse": 0.8}
KINDS = (("half", "exact"), ("half", "bfloat16"), ("compact", "exact"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as folder:
        rows = [row for name, share in ENCODERS.items() for row in measured(name, share, Path(folder))]
    with given.csv.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measured(encoder: str, sparsity: float, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each way to pack and to plan."""
    captioner = packing.load(random_captioners.soft_attention(folder / "exact", sparsity, 0.95))
    for values, width in KINDS:
        size = packing.save(captioner, folder / values, values)
        plan = make_plan(store.load(folder / values), width=width)
        yield {
            "encoder": encoder, "values": values, "width": width, "file_bytes": size, "plan_bytes": plan.data.size,
            "gzip_bytes": len(gzip.compress(plan.data.tobytes(), 9)), "command": " ".join(["python", *sys.argv]),
        }  # fmt: skip


if __name__ == "__main__":
    main()
