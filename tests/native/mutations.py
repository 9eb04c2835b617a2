"""Damages plans and runs what is accepted: the body of test_sanitizers, in a process whose library is watched.

    python mutations.py LIBRARY SEED COUNT PLAN...    prints how many were refused, equal and different

A plan that `laconic_check` accepts must give what numpy gives, up to rounding, or the same kind of error. Plans
and workspaces lie in memory of their own that ends where they end, so that whatever reads or writes beyond is found.
"""

import ctypes
import resource
import sys
import time
import traceback
import weakref
from collections import Counter
from pathlib import Path

import numpy as np

from laconic.decode.search import Decoding
from laconic.errors import FormatError, TrainingError
from laconic.native import library as native
from laconic.runtime import native_path
from laconic.runtime import plan as plans
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.plan import Plan

MOST_SECONDS = 10  # of processor time, for one plan: whatever takes longer hangs, and is killed
MOST_WORKSPACE = 2**24  # bytes: a plan that asks for more than that is legal, and slow
WORDS = (0, 1, 2, 7, 63, 64, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
FILL = 0xFF  # of memory before it is used: no number
Scores = list[list[float]]


def exactly(size: int) -> np.ndarray:
    """`size` bytes aligned to 64 with nothing of ours behind them."""
    found, libc = ctypes.c_void_p(), ctypes.CDLL(None)
    if libc.posix_memalign(ctypes.byref(found), ctypes.c_size_t(64), ctypes.c_size_t(max(size, 1))):
        raise MemoryError(f"{size} bytes")
    buffer = (ctypes.c_uint8 * size).from_address(found.value or 0)
    weakref.finalize(buffer, libc.free, ctypes.c_void_p(found.value))
    array = np.frombuffer(buffer, np.uint8)
    array[:] = FILL
    return array


def changed_words(data: np.ndarray, tables: int, rng: np.random.Generator) -> np.ndarray:
    """One to three words are others, most of them in the header and the tables, the first `tables` bytes."""
    found = data.copy()
    for _ in range(rng.integers(1, 4)):
        end = tables if rng.random() < 0.8 else len(data)
        word = found[: len(data) // 4 * 4].view("<u4")[: end // 4]
        at = rng.integers(2, len(word))
        kind = rng.integers(4)
        if kind == 0:
            word[at] = WORDS[rng.integers(len(WORDS))]
        elif kind == 1:
            word[at] ^= np.uint32(1 << rng.integers(32))
        elif kind == 2:
            word[at] = (int(word[at]) + int(rng.integers(-3, 4))) % 2**32
        else:
            word[at] = word[rng.integers(2, len(word))]
    return found


def changed_arguments(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """One operation looks elsewhere: at another buffer, row, matrix, or constant, that the plan has somewhere."""
    found = Plan(plan.data.copy())
    rows = found.operations["arguments"]
    one, other = rng.integers(len(rows), size=2)
    column = rng.integers(np.flatnonzero(rows[one]).max(initial=0) + 1)
    rows[one, column] = rows[other, rng.integers(8)] if rng.random() < 0.5 else rng.integers(len(found.buffers))
    return found.data


def swapped_operations(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Two operations change places, of one program or of two; or programs begin elsewhere."""
    found = Plan(plan.data.copy())
    if rng.random() < 0.3:
        more, less = rng.permutation(["encode", "image", "images", "step"])[:2]
        count = int(rng.integers(0, int(found.header[less]) + 1))
        found.header[more] += count
        found.header[less] -= count
        return found.data
    one, other = rng.integers(len(found.operations), size=2)
    found.operations[[one, other]] = found.operations[[other, one]]
    return found.data


def changed_weights(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """What a matrix points with: counts, rows, columns, of sparse ones; numbers, of dense ones."""
    found = Plan(plan.data.copy())
    matrix = found.matrices[rng.integers(len(found.matrices))]
    at, size = int(matrix["at"]), int(matrix["bytes"])
    part = found.arena[at : at + min(size // 2 * 2, 2 ** int(rng.integers(3, 20)))].view("<u2")
    place = rng.integers(len(part))
    part[place] = part[rng.integers(len(part))] if rng.random() < 0.5 else part[place] ^ (1 << rng.integers(16))
    return found.data


def cut_off(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The beginning of a plan, with as many bytes as it says or not."""
    found = data[: rng.integers(len(data) + 1) if rng.random() < 0.5 else rng.integers(600)].copy()
    if rng.random() < 0.5 and len(found) >= plans.HEADER.itemsize:
        found[: plans.HEADER.itemsize].view(plans.HEADER)["bytes"] = len(found)
    return found


def mutated(plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """The bytes of a plan with some damage."""
    kind = rng.random()
    if kind < 0.6:
        return changed_words(plan.data, int(plan.header["arena_at"]), rng)
    if kind < 0.75:
        return changed_arguments(plan, rng)
    if kind < 0.85:
        return swapped_operations(plan, rng)
    return changed_weights(plan, rng) if kind < 0.95 else cut_off(plan.data, rng)


def images_for(plan: Plan, rng: np.random.Generator) -> Inputs:
    """Two images such as the plan says that it reads; small ones."""
    h = plan.header
    side, channels = int(h["side"]), int(h["channels"])
    if side:
        return Inputs(pixels=rng.integers(0, 256, (2, side, side, 3), np.uint8))
    counts = np.minimum(np.array([3, 5], np.uint32), h["positions"])
    corners = rng.random((counts.sum(), 2, 2), np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    return Inputs(None, rng.standard_normal((counts.sum(), channels), np.float32), counts, boxes)


def attempt(path: NativePath | NumpyPath, images: Inputs, decoding: Decoding) -> Scores | None:
    """Scores of all captions, and None where they are no numbers."""
    try:
        with np.errstate(all="ignore"):
            return [[hypothesis.score for hypothesis in found] for found in path.search(images, decoding)]
    except TrainingError:
        return None


def equal(ours: Scores | None, theirs: Scores | None) -> bool:
    """Whether two searches agree, as far as rounding lets them: by the scores of the best captions."""
    if ours is None or theirs is None:
        return ours is theirs
    return all(np.isclose(a[0], b[0], rtol=1e-3, atol=1e-3) for a, b in zip(ours, theirs, strict=True))


def overflows(plan: Plan, images: Inputs, decoding: Decoding) -> bool:
    """Whether numbers become infinite: times a zero that a sparse matrix leaves out, they do not diverge."""
    try:
        with np.errstate(over="raise", divide="raise", invalid="ignore"):
            NumpyPath(plan).search(images, decoding)
    except FormatError as error:
        return isinstance(error.__cause__, FloatingPointError)
    except TrainingError:
        pass
    return False


def verdict(data: np.ndarray, rng: np.random.Generator) -> str:
    """What became of a damaged plan; "too large" for one that is sound, but takes more memory than we have."""
    held = exactly(len(data))
    held[:] = data
    if native.library().laconic_check(held.ctypes.data, len(data)):
        return "refused"
    try:
        plan = Plan.of(data)
        path = NativePath(plan)
    except FormatError:
        return "refused"
    decoding = Decoding(beam=int(rng.integers(1, 4)), max_length=4)
    if not 0 < path.workspace_bytes(2, 5, decoding) < MOST_WORKSPACE:
        return "too large"
    images = images_for(plan, rng)
    ours = attempt(path, images, decoding)
    try:
        theirs = attempt(NumpyPath(plan), images, decoding)
    except Exception as error:
        traceback.print_exc()
        return f"numpy: {error!r}"
    if equal(ours, theirs):
        return "equal"
    if (ours is None or theirs is None) and overflows(plan, images, decoding):
        return "infinite"
    return f"different: {ours} {theirs}"


def main(library: str, seed: str, count: str, *files: str) -> int:
    """0 where every plan was refused or did the same."""
    native.NAMES = (library,)
    native_path.aligned = plans.aligned = exactly
    sound = [Plan.read(file) for file in files]
    found = Counter[str]()
    for file, plan in zip(files, sound, strict=True):
        if (said := verdict(plan.data, np.random.default_rng(0))) != "equal":
            print(f"{Path(file).name}, undamaged: {said}", file=sys.stderr)
            found["undamaged, and yet not equal"] += 1
    for number in range(int(seed), int(seed) + int(count)):
        rng = np.random.default_rng(number)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + MOST_SECONDS, resource.RLIM_INFINITY))
        said = verdict(mutated(sound[number % len(sound)], rng), rng)
        found[said.split(":")[0]] += 1
        if ":" in said:
            print(f"damage {number} of {Path(files[number % len(files)]).name}: {said}", file=sys.stderr)
    print(", ".join(f"{number} {said}" for said, number in sorted(found.items())))
    return int(bool(set(found) - {"refused", "equal", "infinite", "too large"}))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
