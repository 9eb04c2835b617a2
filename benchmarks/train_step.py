"""Cost of Supermask Pruning in training: one step against the dense step of the same model, in one run.

    python benchmarks/train_step.py --csv results/train_step.csv --threads 1

On random features: the Soft-Attention LSTM with Flickr8k's sizes, 32 images x 5 captions of 8 to 18 words, others at
each step; Up-Down with the paper's, 15 images x 5 captions of 16 tokens. Dense and pruned steps alternate, while masks
still learn, the latter with and without the kernels of the native library; times are process CPU seconds, medians.
Memory is that of weights, gates, masks and both optimizers' states. The last line printed is one JSON document.
"""

import argparse
import csv
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from laconic.compress.masked import gating
from laconic.compress.masked.pruner import Pruner
from laconic.compress.masked.supermask import Supermask
from laconic.machine.process import settle_in
from laconic.models.layers import Features
from laconic.models.soft_attention import SoftAttention
from laconic.models.up_down import UpDown
from laconic.native.library import library
from laconic.spec.captioners import SoftAttentionConfig, UpDownConfig
from laconic.training.loop import cross_entropy, make_optimizer
from laconic.training.settings import Training

KINDS = "dense", "smp", "smp without a C compiler"
CAPTIONS = 5
WARM_UP = 10  # steps: the first ones allocate, and compile kernels


@dataclass(frozen=True)
class Case:
    """A captioner and the sizes of its batches; captions have shortest..longest tokens, <bos> and <eos> among them."""

    make: Callable[[], nn.Module]
    vocabulary: int
    channels: int
    positions: int
    images: int
    shortest: int
    longest: int

    def features(self) -> Features:
        torch.manual_seed(0)
        return Features(torch.rand(self.images, self.positions, self.channels), torch.rand(self.images, self.channels))

    def captions(self) -> Iterator[torch.Tensor]:
        """Batches of random words and lengths, the same ones whoever asks."""
        noise = torch.Generator().manual_seed(0)
        shape = self.images, CAPTIONS
        while True:
            tokens = torch.randint(4, self.vocabulary, (*shape, self.longest), generator=noise)
            lengths = torch.randint(self.shortest, self.longest + 1, (*shape, 1), generator=noise)
            tokens[torch.arange(self.longest) >= lengths] = 0
            yield tokens


CASES = {
    "soft_attention": Case(
        lambda: SoftAttention(SoftAttentionConfig(2544, 1280, 1280)), 2544, 1280, 49, images=32, shortest=10, longest=20
    ),
    "up_down": Case(
        lambda: UpDown(UpDownConfig(10_001, 2048, 2048)), 10_001, 2048, 36, images=15, shortest=16, longest=16
    ),
}


def tensors(value: object) -> list[torch.Tensor]:
    """All tensors inside nested dicts, lists and modules."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, nn.Module):
        own = [t for m in value.modules() for t in vars(m).values() if isinstance(t, torch.Tensor)]
        return [*value.parameters(), *value.buffers(), *own]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors(v)]
    return []


def no_library() -> None:
    """What `library` says where there is none."""


def make_step(case: Case, kind: str, precision: str) -> Callable[[], int]:
    """A function that trains one step and tells the bytes held in it: weights, gates, draws, optimizer states."""
    torch.manual_seed(1)
    model = case.make().train()
    optimizer = make_optimizer(model, Training())
    pruner = None if kind == "dense" else Pruner(model, Supermask(0.95), steps=1000)
    if pruner is not None:
        pruner.attach(optimizer)
    features, captions = case.features(), case.captions()

    def held() -> int:
        state = [model, optimizer.state_dict()["state"], pruner.state_dict() if pruner else None]
        unique = {t.data_ptr(): t.numel() * t.element_size() for t in tensors(state)}
        return sum(unique.values())

    def step() -> int:
        tokens = next(captions)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(features, tokens)
        cross_entropy(logits, tokens).backward()
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(weights, 5.0)
        now = held()
        optimizer.step()
        optimizer.zero_grad()
        return now

    return mock.patch.object(gating, "library", no_library)(step) if kind == KINDS[2] else step


def measure(captioner: str, precision: str, repeats: int) -> list[dict[str, object]]:
    """Interleaved medians of all kinds of step."""
    gc.collect()
    kinds = {kind: make_step(CASES[captioner], kind, precision) for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    peaks = dict.fromkeys(kinds, 0)
    for repeat in range(repeats + WARM_UP):
        for kind, step in kinds.items():
            started = time.process_time()
            peaks[kind] = max(peaks[kind], step())
            elapsed = time.process_time() - started
            if repeat >= WARM_UP:
                seconds[kind].append(elapsed)
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    return [
        {
            "captioner": captioner,
            "precision": precision,
            "step": kind,
            "cpu_seconds": round(medians[kind], 4),
            "bytes": peaks[kind],
            "time_ratio": round(medians[kind] / medians["dense"], 4),
            "memory_ratio": round(peaks[kind] / peaks["dense"], 3),
            "command": " ".join(["python", *sys.argv]),
        }
        for kind in kinds
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captioner", choices=CASES, help="this one only")
    parser.add_argument("--csv", type=Path, help="write the rows there")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if library() is None:
        parser.error("no native library here to compare with; install laconic where a C compiler is")
    settle_in(options.threads)  # as `laconic train` does; without it the heap's state decides
    captioners = [options.captioner] if options.captioner else list(CASES)
    rows = [
        row
        for name in captioners
        for precision in ("bf16", "float32")
        for row in measure(name, precision, options.repeats)
    ]
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items() if key != "command"), file=sys.stderr)
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
