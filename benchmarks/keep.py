"""Copies what is kept of finished runs into results/: recipe and result, the log compressed, captions of a few.

    python benchmarks/keep.py runs/flickr8k_methods -o results/flickr8k_methods/runs --captions dense --captions smp_0.8

A report can be written from the copies (`laconic report results/flickr8k_methods/runs -o report`). Captions are kept of
runs that docs/ cites; the result of every run says what they are like. Of runs that slim a Transformer the measured
latency is kept, too; runs that have not finished are passed over, and named.
"""

import argparse
import json
from pathlib import Path

from laconic.machine.files import write_text
from laconic.report.keeping import keep
from laconic.spec.manifest import RESULT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of runs")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the copies")
    parser.add_argument("--captions", action="append", default=[], metavar="NAME", help="run whose captions are kept")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.runs.glob("*/recipe.json"))
    unknown = set(options.captions) - {folder.name for folder in folders}
    if unknown:
        parser.error(f"--captions {', '.join(sorted(unknown))}: no such run in {options.runs}")
    if (study := options.runs / "study.json").is_file():  # the command that a report gives for its runs
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / study.name, json.dumps(json.loads(study.read_text(encoding="utf8"))) + "\n")
    for folder in folders:
        if not (folder / RESULT).is_file():
            print(f"{folder.name}: has not finished, not kept")
            continue
        keep(folder, options.out / folder.name, captions=folder.name in options.captions)
        print(folder.name)


if __name__ == "__main__":
    main()
