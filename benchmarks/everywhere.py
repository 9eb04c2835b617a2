"""Whether C and PyTorch say what the engine says: results/everywhere.csv. Browser and ONNX have their own.

    python benchmarks/everywhere.py --csv results/everywhere.csv

The captioner that comes with laconic, on the first validation photos of Flickr8k, beam 3. The C program is compiled
from what `laconic export --to c` writes.
"""

import argparse
import csv
import subprocess
import tempfile
from pathlib import Path

import laconic
from laconic import data
from laconic.captioner.inputs import pixels_of
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.config import expand
from laconic.data.images import Pixels
from laconic.export.table import export

COMPILE = "cc -O3 -march=native -ffp-contract=fast laconic.c engine.c caption.c -o caption"


def by_c(photos: list[Pixels]) -> list[str]:
    """Captions of the exported program, a process for each photo."""
    with tempfile.TemporaryDirectory(prefix="laconic-") as place:
        folder = Path(place, "c")
        export(packed_file(SMALLEST), folder, "c")
        subprocess.run(COMPILE.split(), cwd=folder, check=True)
        said = []
        for photo in photos:
            (folder / "photo.rgb").write_bytes(photo.tobytes())
            command = ["./caption", "captioner.plan", "photo.rgb"]
            done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
            said.append(done.stdout.strip())
        return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    engine = laconic.load()
    examples = data.load("flickr8k", expand("$LACONIC_SHARED/data/flickr8k"), "val")
    photos = [pixels_of(engine.spec, examples[row].image) for row in range(options.photos)]
    expected = engine.caption(photos)
    ways = {"c": by_c(photos), "torch": laconic.load(backend="torch").caption(photos)}
    with options.csv.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["way", "captioner", "photos", "equal", "command"])
        for way, said in ways.items():
            equal = sum(a == b for a, b in zip(said, expected, strict=True))
            writer.writerow([way, SMALLEST, len(photos), equal, f"python benchmarks/everywhere.py --csv {options.csv}"])
            print(way, equal, "of", len(photos))


if __name__ == "__main__":
    main()
