"""Cost of rewards in self-critical training: per caption against pycocoevalcap, and as a share of a training step.

    python benchmarks/scst.py --csv results/scst_speed.csv

Rewards are CIDEr-D plus BLEU-4 of 160 samples (32 images, 5 each) against 5,000 images with 5 references each, made as
in benchmarks/metrics.py. The step is that of a Soft-Attention LSTM with Flickr8k's sizes on random features: sampling,
rewards, forward and backward pass, optimizer. Process CPU time, medians; ours and pycocoevalcap take turns. The last
line printed is one JSON document.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from laconic.metrics.rewards import Rewards
from laconic.models.layers import Features
from laconic.models.soft_attention import SoftAttention
from laconic.spec.captioners import SoftAttentionConfig
from laconic.text import EOS, Vocabulary
from laconic.training.batches import Batch
from laconic.training.loop import make_optimizer
from laconic.training.scst import Scst, SelfCritical
from laconic.training.settings import Training
from metrics import captions, compare

IMAGES, SAMPLES, GRID, POSITIONS = 32, 5, 1280, 49
END_BIAS = 5.3  # lets an untrained captioner end after some ten words, as trained ones do
Row = dict[str, str | float]


def reward_cases(
    references: list[list[str]], sampled: list[str]
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Rewards of 160 samples, ours and pycocoevalcap's, each a call without arguments."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    images = np.repeat(np.arange(IMAGES), SAMPLES)
    numbers: dict[str, int] = {}

    def ids(caption: str) -> tuple[int, ...]:
        return tuple(numbers.setdefault(word, len(numbers)) for word in caption.split())

    by_ids = [[ids(caption) for caption in group] for group in references]
    samples = [ids(caption) for caption in sampled]
    gts = {i: references[image] for i, image in enumerate(images)}
    res = {i: [caption] for i, caption in enumerate(sampled)}

    def stock() -> np.ndarray:
        bleu = Bleu(4).compute_score(gts, res, verbose=0)[1][3]
        return np.asarray(Cider().compute_score(gts, res)[1]) + bleu

    # pycocoevalcap takes document frequencies from the references it is given, so the check must, too
    same = Rewards([by_ids[image] for image in images])(samples, np.arange(len(images)))
    difference = float(np.abs(same - stock()).max())
    if difference > 1e-9:
        sys.exit(f"rewards differ by {difference}")
    rewards = Rewards(by_ids)
    return lambda: rewards(samples, images), stock


def step_seconds(references: list[list[str]], baseline: str, repeats: int) -> tuple[float, float]:
    """CPU seconds of the rewards in a training step, and of the whole step."""
    vocabulary = Vocabulary.build((c for group in references for c in group), 1)
    torch.manual_seed(1)
    model = SoftAttention(SoftAttentionConfig(len(vocabulary), GRID, GRID)).train()
    with torch.no_grad():
        model.output.bias[EOS] += END_BIAS
    optimizer = make_optimizer(model, Training(learning_rate=1e-9))  # the captions shall keep their length
    critic = SelfCritical(Scst(SAMPLES, baseline=baseline), references, vocabulary)  # type: ignore[arg-type]
    rows = np.arange(IMAGES)
    features = Features(torch.rand(IMAGES, POSITIONS, GRID), torch.rand(IMAGES, GRID))
    batch = Batch(features, torch.zeros(IMAGES, 1, 1, dtype=torch.int64), rows)
    ordinary, inside, whole = critic.compare, [], []

    def timed(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        started = time.process_time()
        result = ordinary(*arguments)  # type: ignore[arg-type]
        inside.append(time.process_time() - started)
        return result

    critic.compare = timed  # type: ignore[method-assign, assignment]
    for _ in range(repeats + 2):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = critic(model, batch)
        loss.mean.backward()
        optimizer.step()
        optimizer.zero_grad()
        whole.append(time.process_time() - started)
    return statistics.median(inside[2:]), statistics.median(whole[2:])  # the first steps allocate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, help="write the rows there")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    references, candidates = captions()
    sampled = [c for c in candidates[:IMAGES] for _ in range(SAMPLES)]
    # samples of an image differ, but share words: each begins like its candidate and ends like another's
    sampled = [" ".join(c.split()[: 3 + i % SAMPLES] + candidates[i].split()[5:]) for i, c in enumerate(sampled)]
    ours, stock = (seconds / len(sampled) for seconds in compare(*reward_cases(references, sampled), options.repeats))
    rows: list[Row] = [
        {
            "what": "reward of a caption",
            "seconds": ours,
            "against": "pycocoevalcap",
            "against_seconds": stock,
            "against_over_ours": stock / ours,
        }
    ]
    for baseline in ("others", "greedy"):
        rewards, step = step_seconds(references, baseline, options.repeats)
        rows.append(
            {
                "what": f"rewards of a step, baseline {baseline}",
                "seconds": rewards,
                "against": "training step",
                "against_seconds": step,
                "against_over_ours": step / rewards,
            }
        )
    for row in rows:
        row |= {key: float(f"{value:.4g}") for key, value in row.items() if isinstance(value, float)}
        print(*(f"{key}={value}" for key, value in row.items()), file=sys.stderr)
        row["command"] = " ".join(["python", *sys.argv])
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
