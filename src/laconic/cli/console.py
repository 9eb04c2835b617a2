"""How the command line shows results: lines and tables.

Knows what results look like; decides and computes nothing. Imports no torch by itself.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from laconic.cli.messages import printable_lines
from laconic.cli.paths import STDOUT
from laconic.errors import printable
from laconic.spec.manifest import MODEL

if TYPE_CHECKING:
    from laconic.metrics import CaptionQuality
    from laconic.store import Comparison, Inspection, TensorInfo

WIDE = 160  # columns of what is piped; a table takes no more than it needs
LISTED = 20  # skipped images that are named; the others are counted


class _Console(Console):
    """Shows no control characters of texts that are printed."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable_lines(text) if isinstance(text, str) else text for text in objects), **options)

    def on_broken_pipe(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # that of a bar, which ends in silence
            super().on_broken_pipe()
        raise BrokenPipeError  # whoever called the verb says how it ends


def console_for(json_target: Path | None = None) -> Console:
    """Standard output, unless that is kept for JSON."""
    console = _Console(stderr=json_target == STDOUT)
    return console if console.is_terminal else _Console(stderr=json_target == STDOUT, width=WIDE)


def tell(console: Console, line: str) -> None:
    """One line, as it is: no markup, no colours, not broken."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


# Tables


def scores_table(
    scores: Mapping[str, float], unavailable: Mapping[str, str], quality: "CaptionQuality | None" = None
) -> Table:
    """Scores as papers print them, times 100, and what they do not show."""
    table = _facts_table("score")
    for name, value in scores.items():
        table.add_row(name.replace("Bleu_", "BLEU-").replace("_", "-"), f"{100 * value:.2f}")
    for name, reason in unavailable.items():
        table.add_row(_named(name), _named(f"not available: {reason.removeprefix(name + ': ')}"))
    if quality is not None:
        table.add_section()
        if quality.novel_share is not None:
            table.add_row("not among training captions", f"{quality.novel_share:.1%}")
        table.add_row("distinct captions", f"{quality.distinct:,} of {quality.captions:,}")
        table.add_row("words per caption", f"{quality.mean_words:.2f}")
        table.add_row("ending in a function word", f"{quality.broken_share:.1%}")
    return table


def run_table(result: Mapping[str, Any]) -> Table:
    """What a run came to: `result.json` of its folder."""
    table, scores, counts = _facts_table("result"), result["scores"], result["non_zeros"]
    for name, label in {"CIDEr": "CIDEr", "Bleu_4": "BLEU-4", "ROUGE_L": "ROUGE-L"}.items():
        table.add_row(label, f"{100 * scores[name]:.2f}")
    table.add_section()
    for part in ("encoder", "decoder"):
        kept, weights = counts[part], counts[f"{part}_weights"]
        table.add_row(f"{part} non-zeros", f"{kept:,} of {weights:,} ({kept / max(1, weights):.1%})")
    table.add_row(MODEL, f"{result['bytes']:,} bytes")
    table.add_section()
    for stage, seconds in result["seconds"].items():
        table.add_row(_named(stage), f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s")
    return table


def inspection_table(inspection: "Inspection") -> Table:
    """One row per tensor, and their sum."""
    table = Table("tensor", "shape", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("non-zeros", "kept", "stored as", "bytes", "bits per non-zero", "over bound"):
        table.add_column(column, justify="right")
    for tensor in inspection.tensors:
        table.add_row(*_tensor_row(tensor))
    table.add_section()
    stored = sum(tensor.bytes for tensor in inspection.tensors)
    bits = f"{8 * stored / inspection.non_zeros:.2f}" if inspection.non_zeros else ""
    kept = f"{1 - inspection.sparsity:.1%}"
    over = _over(stored, inspection.bound_bytes)
    table.add_row("all", f"{inspection.weights:,}", f"{inspection.non_zeros:,}", kept, "", f"{stored:,}", bits, over)
    return table


def size_line(inspection: "Inspection") -> str:
    """The file beside the same weights as dense float32."""
    return (
        f"{inspection.path}: {inspection.file_bytes:,} bytes ({decimal(inspection.file_bytes)}); "
        f"dense float32 takes {inspection.dense_bytes:,} bytes, {inspection.ratio:.2f} times as many"
    )


def other_sizes(inspection: "Inspection") -> Iterator[str]:
    """The file beside its entropy bound and what other formats make of the same weights, a line each."""
    from laconic.store.inspection import GZIP_WEIGHTS

    others = {
        "entropy bound of the tensors": inspection.bound_bytes,
        "coordinates, 64-bit indices and float32": inspection.coo_bytes,
        "gzip of dense float32": inspection.gzip_bytes,
    }
    for name, size in others.items():
        if size:
            yield f"{name}: {size:,.0f} bytes, {size / inspection.file_bytes:.2f} times the file"
    if inspection.gzip_bytes is None:
        yield f"gzip of dense float32: not tried on more than {GZIP_WEIGHTS:,} weights"


def comparison_table(comparison: "Comparison") -> Table:
    """One row per tensor that is not the same."""
    table = Table("tensor", "shape", box=box.SIMPLE_HEAD)
    for column in ("non-zeros gained", "lost", "relative error", "largest"):
        table.add_column(column, justify="right")
    for name in comparison.only_first:
        table.add_row(_named(name), "only in the first")
    for name in comparison.only_second:
        table.add_row(_named(name), "only in the second")
    for change in comparison.changed:
        shapes = [" x ".join(map(str, shape)) or "scalar" for shape in dict.fromkeys(change.shapes)]
        kinds = f" ({' -> '.join(change.dtypes)})" if len(set(change.dtypes)) > 1 else ""
        numbers = [f"{change.gained:,}", f"{change.lost:,}"] if change.largest is not None else ["", ""]
        error = "" if change.error is None else f"{change.error:.3%}"
        largest = "" if change.largest is None else f"{change.largest:.3g}"
        table.add_row(_named(change.name), " -> ".join(shapes) + kinds, *numbers, error, largest)
    return table


def comparison_lines(comparison: "Comparison") -> Iterator[str]:
    """What else differs, and how much in all."""
    yield f"{comparison.equal:,} tensors are equal, {len(comparison.changed):,} are not"
    if comparison.error is not None:
        yield f"relative error of all weights: {comparison.error:.3%}"
    if len({precision == "exact" for precision in comparison.precisions}) > 1:
        yield "one file is exact; the other has its biases folded together, which changes weights and not what is said"
    if comparison.config:
        yield f"configuration differs in {', '.join(comparison.config)}"
    if not comparison.same_vocabulary:
        yield "the vocabularies differ"
    yield f"{comparison.file_bytes[0]:,} bytes, {comparison.file_bytes[1]:,} bytes"


def _named(text: str) -> Text:
    """A cell of text from outside: no markup, no control characters."""
    return Text(printable(text))


def _over(size: int, bound: float) -> str:
    """How far a size lies above its bound; nothing where a bound of a few bytes says nothing."""
    return f"{size / bound - 1:+.1%}" if bound >= 16 else ""


def _tensor_row(tensor: "TensorInfo") -> Sequence[RenderableType]:
    shape = " x ".join(map(str, tensor.shape))
    if tensor.tied_to is not None:
        return _named(tensor.name), "", "", "", _named(f"= {tensor.tied_to}"), "0", "", ""
    size = 1
    for side in tensor.shape:
        size *= side
    bits = tensor.bits_per_non_zero
    return (
        _named(tensor.name),
        shape,
        f"{tensor.non_zeros:,}",
        f"{tensor.non_zeros / size:.1%}" if size else "",
        tensor.codec,
        f"{tensor.bytes:,}",
        "" if bits is None else f"{bits:.2f}",
        _over(tensor.bytes, tensor.bound_bytes),
    )


def _facts_table(title: str) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, title=None, caption=None, pad_edge=False)
    table.add_column(title, style="bold", no_wrap=True)
    table.add_column("value")
    return table


def list_skipped(console: Console, skipped: Sequence[str]) -> None:
    """Names the images that were left out, and why."""
    if not skipped:
        return
    lines = [f"{len(skipped):,} images skipped:", *(f"  {line}" for line in skipped[:LISTED])]
    if len(skipped) > LISTED:
        lines.append(f"  and {len(skipped) - LISTED:,} more")
    for line in lines:
        tell(console, line)
