"""Damages plans and runs what is accepted: the body of test_sanitizers, for a process with a library that is watched.

    python mutations.py LIBRARY SEED COUNT PLAN...    prints "refused N, equal M"

A plan that `laconic_check` accepts must give what the numpy path gives, up to rounding, or the same kind of error.
"""

import sys
from pathlib import Path

import numpy as np

from laconic.decode.search import Decoding
from laconic.errors import FormatError, TrainingError
from laconic.native import library as native
from laconic.runtime.inputs import Inputs
from laconic.runtime.native_path import NativePath
from laconic.runtime.numpy_path import NumpyPath
from laconic.runtime.plan import HEADER, Plan

MOST_WORKSPACE = 2**26  # bytes: a plan that asks for more than that is legal, and slow
WORDS = (0, 1, 2, 7, 63, 64, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutated(data: np.ndarray, tables: int, rng: np.random.Generator) -> np.ndarray:
    """The bytes of a plan with one to three words changed, most of them in its first `tables` bytes."""
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
            word[at] += np.uint32(rng.integers(-3, 4) % 2**32)
        else:
            word[at] = word[rng.integers(2, len(word))]
    return found


def images_for(plan: Plan, rng: np.random.Generator) -> Inputs:
    """Two images such as the plan says that it reads; small ones."""
    h = plan.header
    side, channels = int(h["side"]), int(h["channels"])
    if side:
        return Inputs(pixels=rng.integers(0, 256, (2, side, side, 3), np.uint8))
    counts = np.array([3, min(5, int(h["positions"]))], np.uint32)
    corners = rng.random((counts.sum(), 2, 2), np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    return Inputs(
        None, rng.standard_normal((counts.sum(), channels), np.float32), np.minimum(counts, h["positions"]), boxes
    )


def attempt(path: NativePath | NumpyPath, images: Inputs, decoding: Decoding) -> list[list[tuple[int, ...]]] | None:
    """Words of all captions, and None where they are no numbers."""
    try:
        with np.errstate(all="ignore"):
            return [[(h.tokens, h.score) for h in found] for found in path.search(images, decoding)]
    except TrainingError:
        return None


def equal(native_found: list | None, numpy_found: list | None) -> bool:
    """Whether two searches agree, as far as rounding lets them: by the score of the best caption."""
    if native_found is None or numpy_found is None:
        return native_found is numpy_found
    for ours, theirs in zip(native_found, numpy_found, strict=True):
        if not np.isclose(ours[0][1], theirs[0][1], rtol=1e-2, atol=1e-2):
            return False
    return True


def main(library: str, seed: str, count: str, *files: str) -> int:
    native.NAMES = (library,)
    rng = np.random.default_rng(int(seed))
    refused = same = other = 0
    for number in range(int(count)):
        plan = Plan.read(files[number % len(files)])
        data = mutated(plan.data, int(plan.header["arena_at"]), rng)
        try:
            changed = Plan.of(data)
            path = NativePath(changed)
        except FormatError:
            refused += 1
            continue
        images, decoding = images_for(changed, rng), Decoding(beam=int(rng.integers(1, 4)), max_length=5)
        needed = path.workspace_bytes(2, 5, decoding)
        if not 0 < needed < MOST_WORKSPACE:
            refused += 1
            continue
        found = attempt(path, images, decoding)
        if equal(found, attempt(NumpyPath(changed), images, decoding)):
            same += 1
        else:
            other += 1
            print(f"mutation {number} of {Path(files[number % len(files)]).name}: native {found}", file=sys.stderr)
    print(f"refused {refused}, equal {same}, different {other}")
    return int(other > 0)


if __name__ == "__main__":
    assert HEADER.itemsize == 256
    sys.exit(main(*sys.argv[1:]))
