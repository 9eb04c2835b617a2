"""How long caption metrics take, here and in pycocoevalcap, on the same captions.

    python benchmarks/metrics.py [--csv results/metrics_speed.csv]

5,000 images with 5 references each, made from a fixed seed out of a 2,000-word vocabulary with the
word frequencies of text. Process CPU time on one core, child processes (Java) included; the two
sides take turns, medians of the repeats. CIDEr and BLEU appear twice: with the references prepared
once (what training pays for each batch or epoch) and from tokens (what a single evaluation pays).
pycocoevalcap prepares its references inside every call, so its work is the same in both rows. The
last line of the output is one JSON document.
"""

import argparse
import csv
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

IMAGES, REFERENCES, WORDS, VOCABULARY = 5_000, 5, 12, 2_000
COLUMNS = ("what", "ours_s", "pycocoevalcap_s", "ratio", "command")


def captions(seed: int = 0) -> tuple[list[list[str]], list[str]]:
    """References and candidates that share words as captions of one image do."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(VOCABULARY)]
    weights = [1 / (i + 1) for i in range(VOCABULARY)]

    def caption(topic: list[str]) -> str:
        length = rng.randint(WORDS - 4, WORDS + 4)
        start = rng.randrange(len(topic) - 4)
        return " ".join([*topic[start : start + 4], *rng.choices(words, weights, k=length - 4)])

    references, candidates = [], []
    for _ in range(IMAGES):
        topic = rng.choices(words, weights, k=12)
        references.append([caption(topic) for _ in range(REFERENCES)])
        candidates.append(caption(topic))
    return references, candidates


def cpu_seconds(work: Callable[[], object]) -> float:
    def clock() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    before = clock()
    work()
    return clock() - before


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    pairs = [(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(repeats)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other)


def cases() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """What is measured: ours and pycocoevalcap's, each a call without arguments."""
    from pycocoevalcap.bleu.bleu import Bleu as StockBleu
    from pycocoevalcap.cider.cider import Cider as StockCider
    from pycocoevalcap.rouge.rouge import Rouge as StockRouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    from laconic.metrics import Bleu, CiderD, rouge_l, tokenize

    references, candidates = captions()
    gts = dict(enumerate(references))
    res = {i: [caption] for i, caption in enumerate(candidates)}
    # One caption in ten has a mark inside, as in COCO, and takes the tokenizer's slower way.
    raw = {
        i: [{"caption": f"{caption}'s dog." if i % 10 == 0 else f"{caption}."} for caption in group]
        for i, group in gts.items()
    }
    flat = [row["caption"] for rows in raw.values() for row in rows]
    cider, bleu = CiderD(references), Bleu(references)

    def stock_cider() -> float:
        return float(StockCider().compute_score(gts, res)[0])

    def stock_bleu() -> list[float]:
        return list(StockBleu(4).compute_score(gts, res, verbose=0)[0])

    difference = abs(float(cider.score(candidates).mean()) - stock_cider())
    if difference > 1e-9:
        sys.exit(f"CIDEr differs by {difference}")
    return {
        "CIDEr, references prepared": (lambda: cider.score(candidates), stock_cider),
        "CIDEr, from tokens": (lambda: CiderD(references).score(candidates), stock_cider),
        "BLEU-1..4, references prepared": (lambda: bleu.corpus(candidates), stock_bleu),
        "BLEU-1..4, from tokens": (lambda: Bleu(references).corpus(candidates), stock_bleu),
        "ROUGE-L": (
            lambda: rouge_l(references, candidates),
            lambda: StockRouge().compute_score(gts, res),
        ),
        "PTB tokens of 25,000 captions": (
            lambda: tokenize(flat),
            lambda: PTBTokenizer().tokenize(raw),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    command = "python " + " ".join(sys.argv)
    rows = []
    print(f"{'what':<34}{'ours':>10}{'pycocoevalcap':>16}{'ratio':>8}   (CPU seconds)")
    for what, (ours, theirs) in cases().items():
        mine, other = compare(ours, theirs, arguments.repeats)
        rows.append(dict(zip(COLUMNS, (what, mine, other, other / mine, command), strict=True)))
        print(f"{what:<34}{mine:>10.4f}{other:>16.3f}{other / mine:>7.1f}x")
    rows = [{key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    if arguments.csv:
        partial = arguments.csv.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, arguments.csv)
    print(json.dumps({"benchmark": "metrics", "images": IMAGES, "rows": rows}))


if __name__ == "__main__":
    main()
