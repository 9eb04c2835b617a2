"""The engine's speed beside dense engines: whole captions, one thread, process CPU time, in turns.

    python benchmarks/engine.py --out results                       # up_down, relation, photos, cold
    python benchmarks/engine.py --out results --only up_down --check

Writes bench_up_down.csv, bench_ort.csv, bench_flickr8k.csv and bench_cold.csv, and on request bench_install.csv and
bench_folder.csv. Captioners have random weights, pruned at random (random_captioners.py). A ratio is to PyTorch's eager
float32 in the same run. Bars are those of a processor with AVX-512; with less they are 60 % of that. `--check` fails
where a number lies under 60 % of its bar. Dense engines that are not installed are left out.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine_process
import random_captioners

from laconic.bench.contest import CONTESTANTS, EAGER, ENGINE, Subject, ready, reason
from laconic.bench.given import random_inputs
from laconic.bench.processor import has_avx512, level, processor, versions
from laconic.bench.timing import interleaved
from laconic.captioner.ready_made import SMALLEST, packed_file
from laconic.decode.search import Decoding
from laconic.runtime.inputs import Inputs

STEPS, BEAM, PHOTO_STEPS, PHOTO_BEAM = 16, 5, 12, 3
COLD_BAR, READY_MADE_BAR = 0.35, 0.5  # CPU seconds of a process that captions one photo
WITHOUT_AVX512, LEAST = 0.6, 0.6  # of a bar: what it is there, and what fails
UP_DOWN_BARS = {  # images -> sparsity -> times PyTorch's eager float32
    1: {0.80: 8, 0.90: 16, 0.95: 30, 0.975: 50, 0.991: 90},
    50: {0.80: 5, 0.90: 8.5, 0.95: 13, 0.975: 21, 0.991: 35},
}
RELATION_BARS = {0.80: 5, 0.95: 11, 0.991: 18}
PHOTO_BARS = {"encoder 80 %": 4, "dense encoder": 1.5}
INT8 = ("torch int8", "ONNX Runtime int8", "OpenVINO int8")
Row = dict[str, Any]
Timed = dict[str, float]


@dataclass(frozen=True)
class Options:
    rounds: int
    compiled: bool
    folder: Path  # for captioners


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the CSV files")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=[n for n in PARTS if n not in ON_REQUEST])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well, which takes minutes")
    parser.add_argument("--check", action="store_true", help="fail where a number lies under 60 %% of its bar")
    given = parser.parse_args()
    low: list[str] = []
    with tempfile.TemporaryDirectory(prefix="laconic-bench-") as folder:
        options = Options(given.rounds, given.compile, Path(folder))
        for name in given.only:
            file, measure = PARTS[name]
            rows = [finished(row) for row in measure(options)]
            low += [f"{file}: {row}" for row in rows if row["share_of_bar"] != "" and row["share_of_bar"] < LEAST]
            if given.out:
                write(given.out / file, rows)
    if given.check and low:
        sys.exit("under 60 % of the bar:\n" + "\n".join(low))


def finished(row: Row) -> Row:
    """A row with what its bar is here, how much of it was reached, and where that was."""
    bar, reached = row.pop("bar", None), row.get("reached")
    if bar is not None and row.pop("scaled", True) and not has_avx512():
        bar *= WITHOUT_AVX512
    row["bar"] = "" if bar is None else bar
    less = row.pop("less_is_better", False)
    share = None if bar is None or not reached else (bar / reached if less else reached / bar)
    row["share_of_bar"] = "" if share is None else share
    row |= {"processor": processor(), "avx512": has_avx512(), "level": level()}
    row["versions"] = " ".join(f"{name}={version}" for name, version in versions().items())
    row["command"] = " ".join(["python", *sys.argv])
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    print(*(f"{key}={value}" for key, value in list(rounded.items())[:-5]), flush=True)
    return rounded


def write(path: Path, rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# Whole captions


def rivals(options: Options) -> list[str]:
    """All but numpy, which is none, and what was not asked for."""
    left_out = {"numpy", ENGINE, *(() if options.compiled else ("torch compiled",))}
    return [name for name in CONTESTANTS if name not in left_out]


def attempt(subject: Subject, decoding: Decoding, name: str) -> tuple[Callable[[], Any], list[Any]] | None:
    """A way, warm, and its captions; None, with the reason on standard error, where it does not run."""
    try:
        return ready(subject, decoding, CONTESTANTS[name])
    except Exception as error:  # a benchmark of the others still has its use
        print(f"{name}: left out, {reason(error)}", file=sys.stderr)
        return None


def race(
    files: Mapping[str, Path], inputs: Callable[[Subject], Inputs], decoding: Decoding, options: Options
) -> tuple[Timed, dict[str, int]]:
    """Seconds of the engine by label, and of every rival on the first file, which computes as much on each; how many
    captions of each label are PyTorch's."""
    ways: dict[str, Callable[[], Any]] = {}
    equal: dict[str, int] = {}
    for place, (label, path) in enumerate(files.items()):
        subject = Subject(path, Inputs())
        subject = Subject(path, inputs(subject))
        engine = attempt(subject, decoding, ENGINE)
        if engine is not None:
            ways[label] = engine[0]
        for name in rivals(options) if place == 0 else [EAGER]:
            found = attempt(subject, decoding, name)
            if found is not None and name == EAGER and engine is not None:
                equal[label] = sum(map(tuple.__eq__, engine[1], found[1]))
            if found is not None and place == 0:
                ways[name] = found[0]
    return interleaved(ways, options.rounds), equal


def compared(seconds: Timed, label: str, images: int) -> Row:
    """Milliseconds per image, and how many times as long the rivals take."""
    dense = {name: seconds[name] for name, one in CONTESTANTS.items() if one.dense and name in seconds}
    int8 = {name: seconds[name] for name in INT8 if name in seconds}
    engine = seconds.get(label)
    row: Row = {"engine_ms": "" if engine is None else 1000 * engine / images}
    for title, some in {"torch": {EAGER: dense[EAGER]}, "best_dense": dense, "best_int8": int8}.items():
        name = min(some, key=lambda one: some[one], default="")
        row[title] = name
        row[f"{title}_ms"] = 1000 * some[name] / images if name else ""
        row[f"times_{title}"] = some[name] / engine if name and engine else ""
    row |= {f"{name} ms": 1000 * seconds[name] / images for name in CONTESTANTS if name in seconds}
    return row | {"reached": row["times_torch"]}


def measure_up_down(options: Options) -> list[Row]:
    files = {
        f"{sparsity}": random_captioners.up_down(options.folder / f"up_down_{sparsity}.safetensors", sparsity)
        for sparsity in UP_DOWN_BARS[1]
    }
    rows = []
    for images, bars in UP_DOWN_BARS.items():
        timed, equal = race(files, lambda s, n=images: random_inputs(s.spec, n), Decoding(BEAM, STEPS), options)
        for sparsity, bar in bars.items():
            case = {"images": images, "beam": BEAM, "steps": STEPS, "sparsity": sparsity}
            rows.append(
                case | compared(timed, f"{sparsity}", images) | {"equal": equal.get(f"{sparsity}", ""), "bar": bar}
            )
    return rows


def measure_relation(options: Options) -> list[Row]:
    """A step of the decoder with 5 captions: what 15 more words take, by 15."""
    rows = []
    files = {
        f"{sparsity}": random_captioners.object_relation(options.folder / f"relation_{sparsity}.safetensors", sparsity)
        for sparsity in RELATION_BARS
    }
    long, equal = race(files, lambda s: random_inputs(s.spec, 1), Decoding(BEAM, STEPS), options)
    short, _ = race(files, lambda s: random_inputs(s.spec, 1), Decoding(BEAM, 1), options)
    step = {name: (long[name] - short[name]) / (STEPS - 1) for name in long if name in short}
    for sparsity, bar in RELATION_BARS.items():
        case = {"rows": BEAM, "sparsity": sparsity, "equal": equal.get(f"{sparsity}", "")}
        rows.append({"of": "step", **case, **compared(step, f"{sparsity}", 1), "bar": bar})
        rows.append({"of": "caption", **case, **compared(long, f"{sparsity}", 1)})
    return rows


def measure_photos(options: Options) -> list[Row]:
    """Pixels of one photo to its caption, the decoder 95 % sparse."""
    files = {
        label: random_captioners.soft_attention(options.folder / f"photo_{encoder}.safetensors", encoder, 0.95)
        for label, encoder in {"encoder 80 %": 0.8, "dense encoder": 0.0}.items()
    }
    timed, equal = race(files, lambda s: random_inputs(s.spec, 1), Decoding(PHOTO_BEAM, PHOTO_STEPS), options)
    rows = []
    for label, bar in PHOTO_BARS.items():
        case = {"encoder": label, "beam": PHOTO_BEAM, "steps": PHOTO_STEPS, "equal": equal.get(label, "")}
        row = case | compared(timed, label, 1)
        openvino = timed.get("OpenVINO float32")
        row["times_openvino"] = openvino / timed[label] if openvino and label in timed else ""
        rows.append(row | {"bar": bar})
    return rows


def measure_cold(options: Options) -> list[Row]:
    files = {
        "as of the demo": (random_captioners.small(options.folder / "small.safetensors", 0.87), COLD_BAR),
        "Flickr8k": (
            random_captioners.soft_attention(options.folder / "cold.safetensors", 0.8, 0.95, "half"),
            COLD_BAR,
        ),
        SMALLEST: (packed_file(SMALLEST), READY_MADE_BAR),
    }
    return engine_process.cold(files, options.folder, options.rounds)


def measure_folder(options: Options) -> list[Row]:
    file = random_captioners.soft_attention(options.folder / "folder.safetensors", 0.8, 0.95)
    return engine_process.folder(file, options.folder)


def measure_install(options: Options) -> list[Row]:
    return engine_process.install(options.folder)


PARTS: dict[str, tuple[str, Callable[[Options], list[Row]]]] = {
    "up_down": ("bench_up_down.csv", measure_up_down),
    "relation": ("bench_ort.csv", measure_relation),
    "photos": ("bench_flickr8k.csv", measure_photos),
    "cold": ("bench_cold.csv", measure_cold),
    "folder": ("bench_folder.csv", measure_folder),
    "install": ("bench_install.csv", measure_install),
}
ON_REQUEST = ("folder", "install")  # they want a quiet machine, and packages from an index

if __name__ == "__main__":
    main()
