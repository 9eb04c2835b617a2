"""The two captioners of `make demo`: what they score, how many captions name things rightly, how large their files are.

    make demo
    python benchmarks/demo.py --csv results/demo.csv

Reads what the demo has measured (`runs/demo/demo.json`). `training_seconds` are wall time on the processor named
beside them, that of this machine. The last line printed is one JSON document.
"""

import argparse
import csv
import json
import platform
from pathlib import Path
from typing import Any

COLUMNS = (
    "model", "CIDEr", "of_dense", "named_right", "Bleu_4", "weights", "non_zeros", "file_bytes", "times_smaller",
    "training_seconds", "processor", "threads", "command",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="the demo's folder")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    measured = json.loads((arguments.run / "demo.json").read_text(encoding="utf8"))
    rows = [row(name, measured) for name in measured["models"]]
    if arguments.csv:
        with arguments.csv.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(json.dumps({"benchmark": "demo", "rows": rows}))


def row(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    """One model as a line of the table; scores times 100, as papers write them."""
    model, dense = measured["models"][name], measured["models"]["dense"]
    return {
        "model": name,
        **{key: f"{100 * model[key]:.1f}" for key in ("CIDEr", "named_right", "Bleu_4")},
        "of_dense": f"{100 * model['CIDEr'] / dense['CIDEr']:.1f}",
        **{key: model[key] for key in ("weights", "non_zeros", "file_bytes")},
        "times_smaller": f"{dense['file_bytes'] / model['file_bytes']:.1f}",
        "training_seconds": model["seconds"]["training"],
        "processor": processor(),
        "threads": measured["threads"],
        "command": "make demo",
    }


def processor() -> str:
    """Such as "AMD EPYC"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
