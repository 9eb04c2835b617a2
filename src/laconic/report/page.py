"""One HTML page that shows what pruning did: scores, file sizes, curves, layers, and captioned images.

The page stands alone: style, charts and images are inside, nothing is loaded and no script runs. It
follows the reader's light or dark scheme and reads well on a phone. Knows nothing of recipes, models or
data sets: it is given numbers, words and pixels.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from laconic.errors import TrainingError
from laconic.machine.files import write_text
from laconic.report.charts import Line, line_chart
from laconic.report.style import STYLE

IMAGE_SIDE = 320  # pixels of an embedded image at most
JPEG_QUALITY = 86


@dataclass(frozen=True)
class Contender:
    """One of the two models that are compared.

    Attributes:
        name: such as "dense".
        cider, bleu4: as metrics.evaluate gives them; the page shows them times 100, as papers do.
        weights, non_zeros: of the whole model.
        file_bytes: of the file that one would ship.
        loss, sparsity, validation: (step, value) along the training; CIDEr in `validation`.
        right: share of the captions that name what is there and nothing else, where that can be told.
        milliseconds: of one processor core for a caption, from pixels on; of the dense model in PyTorch.
    """

    name: str
    cider: float
    bleu4: float
    weights: int
    non_zeros: int
    file_bytes: int
    loss: Sequence[tuple[int, float]] = ()
    sparsity: Sequence[tuple[int, float]] = ()
    validation: Sequence[tuple[int, float]] = ()
    right: float | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Layer:
    """How much of one matrix of the pruned model is left."""

    name: str
    weights: int
    non_zeros: int

    @property
    def kept(self) -> float:
        """Share of the weights that are not zero."""
        return self.non_zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, uint8 (H, W, 3), with what each model and a person say about it."""

    name: str
    pixels: np.ndarray
    dense: str
    pruned: str
    reference: str


@dataclass(frozen=True)
class Story:
    """The words around the numbers.

    Attributes:
        opening: a paragraph.
        commands: to go on with.
        learned: whether the shares that layers kept were learned; the sparsity of each may have been set, too.
    """

    opening: str
    commands: Sequence[str] = field(default=())
    learned: bool = False


def captions_page(
    dense: Contender,
    pruned: Contender,
    layers: Sequence[Layer],
    pictures: Sequence[Picture],
    story: Story,
) -> str:
    """The whole page; every text is escaped."""
    sections = [
        _header(dense, pruned, story),
        f'<div class="pair">{_scores(dense, pruned)}{_sizes(dense, pruned)}</div>',
        _gallery(pictures),
        _curves(dense, pruned),
        _layers(layers, story.learned),
        _commands(story.commands),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(headline(dense, pruned))}</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(filter(None, sections)) + "\n</main>\n</body>\n</html>\n"
    )


def write_page(page: str, path: Path) -> None:
    """Writes the page atomically; TrainingError where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise TrainingError(f"{path}: page cannot be written ({error}); free the disk") from None


def headline(dense: Contender, pruned: Contender) -> str:
    """Such as "24× smaller, 97 % of the score"."""
    smaller = f"{times(dense.file_bytes, pruned.file_bytes)} smaller"
    if dense.cider <= 0:
        return smaller
    return f"{smaller}, {pruned.cider / dense.cider:.0%} of the score"


def times(large: float, small: float) -> str:
    """A ratio as "24×", with one decimal below ten."""
    ratio = large / small if small else 0.0
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×"


def readable_bytes(count: int) -> str:
    """Such as "2.1 MB" or "86 kB", decimal units."""
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 20 else f"{value:.1f} {unit}"
    return f"{count} bytes"


# Sections


def _header(dense: Contender, pruned: Contender, story: Story) -> str:
    big, _, small = headline(dense, pruned).partition(", ")
    rest = f"<br><em>{escape(small)}</em>" if small else ""
    return (
        f'<header><p class="eyebrow">laconic</p><h1>{escape(big)}{rest and ","}{rest}</h1>'
        f'<p class="lead">{escape(story.opening)}</p>{_key_figures(dense, pruned)}</header>'
    )


def _key_figures(dense: Contender, pruned: Contender) -> str:
    """The size beside what it costs: the pruned model's figures, and below each that of the dense one."""
    figures = [
        ("the file", readable_bytes(pruned.file_bytes), readable_bytes(dense.file_bytes)),
        ("CIDEr, the score", f"{100 * pruned.cider:.0f}", f"{100 * dense.cider:.0f}"),
    ]
    if dense.right is not None and pruned.right is not None:
        figures.append(("captions with every thing named right", f"{pruned.right:.0%}", f"{dense.right:.0%}"))
    if dense.milliseconds is not None and pruned.milliseconds is not None:
        spent, beside = f"{pruned.milliseconds:.1f} ms", f"{dense.milliseconds:.1f} ms"
        figures.append(("processor time for a caption", spent, beside))
    rows = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd>"
        f'<dd class="beside">{escape(dense.name)} {escape(below)}</dd></div>'
        for what, value, below in figures
    )
    return f'<dl class="figures">{rows}</dl>'


def _scores(dense: Contender, pruned: Contender) -> str:
    rows = "".join(
        f'<tr class="{kind}"><th scope="row"><i class="swatch {kind}"></i>{escape(model.name)}</th>'
        f"<td>{100 * model.cider:.1f}</td><td>{100 * model.bleu4:.1f}</td>"
        f"<td>{model.non_zeros:,}</td><td>{readable_bytes(model.file_bytes)}</td></tr>"
        for kind, model in (("dense", dense), ("pruned", pruned))
    )
    note = "On validation pictures, each model as it is in its file."
    return (
        f'<section><h2>Scores</h2><p class="note">{note}</p><table><thead><tr><th></th>'
        '<th scope="col">CIDEr</th><th scope="col">BLEU-4</th>'
        '<th scope="col">non-zeros</th><th scope="col">file</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _sizes(dense: Contender, pruned: Contender) -> str:
    largest = max(dense.file_bytes, pruned.file_bytes, 1)
    bars = "".join(
        f'<div class="bar"><span class="fill {kind}" '
        f'style="width:{100 * model.file_bytes / largest:.2f}%"></span>'
        f'<span class="label">{escape(model.name)} {readable_bytes(model.file_bytes)}</span></div>'
        for kind, model in (("dense", dense), ("pruned", pruned))
    )
    note = "Encoder, captioner and vocabulary, to scale."
    return f'<section><h2>The two files</h2><p class="note">{note}</p><div class="bars">{bars}</div></section>'


def _gallery(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    note = "Pictures that neither model has seen. In grey, a reference caption."
    figures = "\n".join(_figure(picture) for picture in pictures)
    return f'<section><h2>What they see</h2><p class="note">{note}</p><div class="gallery">{figures}</div></section>'


def _figure(picture: Picture) -> str:
    lines = "".join(
        f'<p class="{kind}"><i class="swatch {kind}" title="{kind}"></i>{escape(text) or "&mdash;"}</p>'
        for kind, text in (("dense", picture.dense), ("pruned", picture.pruned))
    )
    return (
        f'<figure><img src="{data_uri(picture.pixels)}" alt="{escape(picture.reference)}" loading="lazy">'
        f'<figcaption>{lines}<p class="reference">{escape(picture.reference)}</p></figcaption></figure>'
    )


def _curves(dense: Contender, pruned: Contender) -> str:
    charts = []
    for title, points, top, unit in (
        ("Loss", lambda model: model.loss, None, "g"),
        ("Sparsity", lambda model: model.sparsity, 1.0, ".0%"),
        ("CIDEr on validation pictures", lambda model: [(x, 100 * y) for x, y in model.validation], None, "g"),
    ):
        lines = [
            Line(model.name, kind, points(model))
            for kind, model in (("dense", dense), ("pruned", pruned))
            if points(model)
        ]
        if lines:
            chart = line_chart(title, lines, top=top, unit=unit)
            charts.append(f'<div class="chart"><h3>{escape(title)}</h3>{chart}</div>')
    if not charts:
        return ""
    legend = "".join(
        f'<span><i class="swatch {kind}"></i>{escape(model.name)}</span>'
        for kind, model in (("dense", dense), ("pruned", pruned))
    )
    return (
        f'<section><h2>How they learned</h2><p class="note legend">{legend}</p>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _layers(layers: Sequence[Layer], learned: bool) -> str:
    if not layers:
        return ""
    rows = "".join(
        f'<li><span class="name">{escape(layer.name)}</span>'
        f'<span class="track"><span class="fill pruned" style="width:{100 * layer.kept:.2f}%"></span></span>'
        f'<span class="kept">{100 * layer.kept:.1f} %</span></li>'
        for layer in layers
    )
    note = "Share of the weights that each layer of the pruned model kept."
    note += " Nobody set these; they were learned." if learned else ""
    return f'<section><h2>Where the weights went</h2><p class="note">{note}</p><ul class="layers">{rows}</ul></section>'


def _commands(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    lines = "\n".join(escape(command) for command in commands)
    return f"<section><h2>Go on from here</h2><pre><code>{lines}</code></pre></section>"


def data_uri(pixels: np.ndarray) -> str:
    """A uint8 RGB image as a JPEG data URI, no side above IMAGE_SIDE."""
    image = Image.fromarray(pixels)
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
