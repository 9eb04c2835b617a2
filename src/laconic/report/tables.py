"""Runs as rows: the CSV file with everything, and the Markdown tables that a paper would print.

Equal runs give equal bytes. Knows nothing of figures, photos or how a number was measured.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from laconic.metrics import METRICS, CaptionQuality
from laconic.report.methods import in_order, method_name
from laconic.report.runs import FinishedRun, captioner_key, captioner_title

SEED = "training.seed"
# No ablations: what tells methods and sparsities apart, which have a figure of their own; and seeds, with their table.
OF_METHODS = ("sparsity", "scope", "centred", "signed", "ticket")
COMPARED = ("pruning.method", *(f"pruning.options.{key}" for key in OF_METHODS), SEED)


@dataclass(frozen=True)
class Row:
    """A run with what was found out about it.

    Attributes:
        dense: the run it is compared with; itself for a dense one, None where there is none.
        quality: of its captions; None where it is not known.
        command: that repeats it; empty where unknown.
    """

    run: FinishedRun
    dense: FinishedRun | None
    quality: CaptionQuality | None
    command: str

    @property
    def method(self) -> str:
        return method_name(self.run)

    @property
    def share(self) -> float | None:
        """CIDEr as a share of the dense run's."""
        return self.run.cider / self.dense.cider if self.dense is not None and self.dense.cider > 0 else None


def in_reading_order(rows: Sequence[Row]) -> list[Row]:
    """By captioner, the largest first; method, dense first; and sparsity."""
    methods = in_order([row.method for row in rows])
    return sorted(
        rows,
        key=lambda r: (captioner_title(r.run), -r.run.weights(), methods.index(r.method), r.run.sparsity, r.run.name),
    )


# CSV


def csv_text(rows: Sequence[Row]) -> str:
    """One row for each run; scores times 100, as papers print them, with digits enough to be rounded once more."""
    lines = [csv_row(row) for row in in_reading_order(rows)]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def csv_row(row: Row) -> dict[str, Any]:
    """Columns of one run; what is not known is empty."""
    run, recipe = row.run, row.run.recipe
    scores, seconds = run.result["scores"], run.result["seconds"]
    operations, quality = run.operations, row.quality
    known = [name for metric in METRICS.values() for name in metric.names]
    return {
        "run": run.name,
        "data": recipe["data"]["name"],
        "encoder": recipe["encoder"]["name"],
        "captioner": recipe["decoder"]["name"],
        "objective": run.objective,
        "method": row.method,
        "pruned_part": "" if run.is_dense else run.pruning["where"],
        "sparsity": run.sparsity,
        "epochs": recipe["training"]["epochs"],
        "seed": run.seed,
        **{name: "" if scores.get(name) is None else f"{100 * scores[name]:.4f}" for name in known},
        "share_of_dense": "" if row.share is None else f"{row.share:.4f}",
        "dense_run": "" if row.dense is None else row.dense.name,
        "encoder_weights": run.weights(["encoder"]),
        "encoder_non_zeros": run.non_zeros(["encoder"]),
        "decoder_weights": run.weights(["decoder"]),
        "decoder_non_zeros": run.non_zeros(["decoder"]),
        "bytes": run.result["bytes"],
        "encoder_operations": "" if operations is None else operations.encoder,
        "decoder_operations": "" if operations is None else operations.decoder,
        "novel_share": "" if quality is None or quality.novel_share is None else f"{quality.novel_share:.4f}",
        "distinct_share": "" if quality is None else f"{quality.distinct_share:.4f}",
        "mean_words": "" if quality is None else f"{quality.mean_words:.2f}",
        "broken_share": "" if quality is None else f"{quality.broken_share:.4f}",
        "training_seconds": seconds.get("training", ""),
        "scoring_seconds": seconds.get("scoring", ""),
        "command": row.command,
    }


# Markdown


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns are text and the others numbers."""
    marks = ["---"] * texts + ["---:"] * (len(head) - texts)
    lines = [list(head), marks, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def results_table(rows: Sequence[Row]) -> str:
    """Scores, non-zeros and size of each run."""
    head = ["run", "method", "sparsity", "CIDEr", "CIDEr / dense", "BLEU-4", "ROUGE-L"]
    head += ["non-zero weights", "packed file", "training time"]
    return markdown_table(head, [_result(row) for row in in_reading_order(rows)], texts=2)


def _result(row: Row) -> list[str]:
    return [
        row.run.name,
        row.method,
        percent(row.run.sparsity),
        f"{100 * row.run.cider:.1f}",
        "" if row.share is None else percent(row.share, 1),
        score(row, "Bleu_4"),
        score(row, "ROUGE_L"),
        f"{row.run.non_zeros():,}",
        f"{int(row.run.result['bytes']) / 1e6:.2f} MB",
        f"{row.run.minutes:.0f} min",
    ]


def cost_table(rows: Sequence[Row]) -> str:
    """Large and sparse against small and dense (Table 4 of the paper): by falling number of non-zeros."""
    head = ["run", "weights", "non-zero weights", "of the encoder", "of the decoder"]
    head += ["encoder, MFLOPs", "decoder, MFLOPs", "CIDEr"]
    lines = []
    for row in sorted(rows, key=lambda r: (-r.run.non_zeros(), r.run.name)):
        run, operations = row.run, row.run.operations
        lines.append(
            [
                run.name,
                f"{run.weights():,}",
                *(f"{run.non_zeros(parts):,}" for parts in (("encoder", "decoder"), ["encoder"], ["decoder"])),
                "" if operations is None else f"{operations.encoder / 1e6:.1f}",
                "" if operations is None else f"{operations.decoder / 1e6:.1f}",
                f"{100 * run.cider:.1f}",
            ]
        )
    return markdown_table(head, lines)


def statistics_table(rows: Sequence[Row]) -> str:
    """What captions are like (Table 1 of the paper), of the runs of which it is known."""
    head = ["run", "not a training caption", "different captions", "words a caption", "end in a function word"]
    lines = [
        [
            row.run.name,
            "" if row.quality.novel_share is None else percent(row.quality.novel_share, 1),
            percent(row.quality.distinct_share, 1),
            f"{row.quality.mean_words:.2f}",
            percent(row.quality.broken_share, 1),
        ]
        for row in in_reading_order(rows)
        if row.quality is not None
    ]
    return markdown_table(head, lines)


@dataclass(frozen=True)
class Ablation:
    """Runs that differ in one option alone: its key, and each value with its row."""

    key: str
    rows: tuple[tuple[Any, Row], ...]


def ablations(rows: Sequence[Row]) -> list[Ablation]:
    """Every option that alone tells some runs apart (Tables 5 and 6 of the paper: gate value m, weight lambda)."""
    found = []
    for key in sorted({key for row in rows for key in row.run.options} - set(COMPARED)):
        for group in _alike_but_for(key, rows):
            values: dict[str, tuple[Any, Row]] = {}
            for row in group:
                value = row.run.options.get(key)
                values.setdefault(json.dumps(value), (value, row))
            if len(values) > 1:
                found.append(Ablation(key, tuple(sorted(values.values(), key=lambda pair: _sortable(pair[0])))))
    return found


def _alike_but_for(key: str, rows: Sequence[Row]) -> list[list[Row]]:
    """Rows in groups whose runs differ in this option at most."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        rest = {k: v for k, v in row.run.options.items() if k != key}
        groups.setdefault(f"{captioner_key(row.run)}{json.dumps(rest, sort_keys=True)}", []).append(row)
    return list(groups.values())


def seeds_table(rows: Sequence[Row]) -> str:
    """Mean and range of the CIDEr of runs that differ in their seed alone; empty where there are none.

    The share of dense is that of the means: of these runs, and of the dense runs that they are compared with.
    """
    head = ["runs", "method", "sparsity", "mean CIDEr", "lowest CIDEr", "highest CIDEr", "mean CIDEr / dense"]
    lines = []
    for group in _alike_but_for(SEED, in_reading_order(rows)):
        if len(group) > 1:
            ciders = [row.run.cider for row in group]
            dense = {row.dense.name: row.dense.cider for row in group if row.dense is not None}
            share = fmean(ciders) / fmean(dense.values()) if dense and any(dense.values()) else None
            scores = [f"{100 * cider:.1f}" for cider in (fmean(ciders), min(ciders), max(ciders))]
            names = ", ".join(row.run.name for row in group)
            shown = "" if share is None else percent(share, 1)
            lines.append([names, group[0].method, percent(group[0].run.sparsity), *scores, shown])
    return markdown_table(head, lines, texts=2) if lines else ""


def ablation_table(ablation: Ablation) -> str:
    """One row for each value of the option; one that is not set is derived, or the captioner's default."""
    unset = "derived" if ablation.key.startswith("pruning.") else "default"
    head = [ablation.key, "run", "sparsity", "CIDEr", "BLEU-4"]
    lines = [
        [
            unset if value is None else f"{value}",
            row.run.name,
            percent(row.run.sparsity),
            f"{100 * row.run.cider:.1f}",
            score(row, "Bleu_4"),
        ]
        for value, row in ablation.rows
    ]
    return markdown_table(head, lines, texts=2)


def score(row: Row, name: str) -> str:
    """Times 100; empty where a run has no such score."""
    value = row.run.result["scores"].get(name)
    return "" if value is None else f"{100 * value:.1f}"


def percent(share: float, digits: int | None = None) -> str:
    """Such as "97.5 %"; without digits as many as needed."""
    return f"{100 * share:.6g} %" if digits is None else f"{100 * share:.{digits}f} %"


def _sortable(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))
