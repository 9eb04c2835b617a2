"""How figures look, and the few things that all of them do: begin, label, mark, write.

Needs the extra `report`. Equal figures give equal bytes: fonts come with matplotlib, and nothing random or dated is
drawn. Knows nothing of what is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from laconic.errors import MissingError
from laconic.machine.files import atomically
from laconic.report.methods import INK, RULE, SOFT, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches
DPI = 200
COLOURS = 160  # of a figure; fewer tint the pale areas

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": DPI,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all figures. MissingError where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise MissingError(
            'laconic report draws with matplotlib, which is not installed: pip install "laconic[report]"'
        ) from None
    matplotlib.use("agg")
    with matplotlib.rc_context(RC):
        yield


def write_figure(figure: Figure, path: Path) -> None:
    """As PNG of at most COLOURS colours, a third of the bytes, atomically; the file bears no date and no version."""
    import matplotlib.pyplot as plt

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    with Image.open(drawn) as image, atomically(path) as file:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)


def subplots(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", **options)


def mark(style: Style) -> Any:
    """Options of a line's marks; crosses are thin and want to be larger."""
    size = 8.5 if style.marker in "XP*" else 6.5
    return {"marker": style.marker, "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.7}


def label(axes: Axes, name: str, place: tuple[float, float], shift: tuple[float, float], colour: str) -> None:
    """A name beside a point, `shift` points away, readable across lines."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        name,
        place,
        shift,
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=8.5,
        annotation_clip=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def readable(count: float) -> str:
    """Such as "343 k" or "6.8 M"."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"
