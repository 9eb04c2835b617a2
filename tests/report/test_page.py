"""The report page: stands alone, escapes what it is given, and shows every picture."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from laconic.errors import TrainingError
from laconic.report.charts import BOTTOM, HEIGHT, TOP, Line, line_chart, thin, y_ticks
from laconic.report.page import (
    Contender,
    Layer,
    Picture,
    Story,
    captions_page,
    data_uri,
    headline,
    readable_bytes,
    times,
    write_page,
)

VOID = {"meta", "img", "br", "line", "circle", "polyline"}
DENSE = Contender("dense", 2.5, 0.5, 400_000, 400_000, 1_600_000, [(1, 4.0), (9, 0.5)], (), [(9, 2.4)])
PRUNED = Contender(
    "pruned", 2.4, 0.48, 400_000, 20_000, 64_000, [(1, 4.0), (9, 0.6)], [(1, 0.0), (9, 0.95)], [(9, 2.3)]
)
NASTY = "<script>alert(\"x\")</script> & 'more'"


class Outline(HTMLParser):
    """Counts elements, checks that they nest, and keeps text and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pictures(count: int, text: str = "a red ring") -> list[Picture]:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 40, 48, 3)).astype(np.uint8)
    return [Picture(f"{i}.png", image, text, text, text) for i, image in enumerate(pixels)]


def page(text: str = "a red ring", count: int = 5) -> str:
    layers = [Layer(text, 100, 7)]
    return captions_page(DENSE, PRUNED, layers, pictures(count, text), Story(text, [text]))


def test_page_nests_and_has_one_figure_for_each_picture() -> None:
    outline = Outline(page(count=5))
    assert outline.tags.count("figure") == outline.tags.count("img") == 5
    assert outline.tags.count("svg") == 3
    assert "25× smaller," in outline.text
    assert "96% of the score" in outline.text
    assert "7.0 %" in outline.text


def test_what_a_caption_takes_is_shown_where_it_is_known() -> None:
    timed = captions_page(
        replace(DENSE, milliseconds=41.3), replace(PRUNED, milliseconds=2.26), [], [], Story("opening")
    )
    assert "2.3 ms" in timed
    assert "dense 41.3 ms" in timed
    assert "processor time" not in captions_page(DENSE, PRUNED, [], [], Story("opening"))


def test_page_loads_nothing() -> None:
    text = page()
    assert Outline(text).addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in Outline(text).addresses)
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)


def test_every_text_is_escaped() -> None:
    text = captions_page(
        replace(DENSE, name=NASTY),
        replace(PRUNED, name=NASTY),
        [Layer(NASTY, 10, 1)],
        pictures(2, NASTY),
        Story(NASTY, [NASTY]),
    )
    outline = Outline(text)
    assert "script" not in outline.tags
    # 2 in the table, 2 bars, 2 in the legend; 3 of each picture; layer; opening; command
    assert outline.text.count(NASTY) == 8 + 3 * 2 + 3


def test_sections_without_content_are_left_out() -> None:
    bare = [replace(model, loss=(), sparsity=(), validation=()) for model in (DENSE, PRUNED)]
    outline = Outline(captions_page(bare[0], bare[1], [], [], Story("opening")))
    assert not {"figure", "svg", "ul", "pre"} & set(outline.tags)


def test_key_figures_stand_beside_the_size() -> None:
    page = captions_page(replace(DENSE, right=0.97), replace(PRUNED, right=0.951), [], [], Story(""))
    header = page[page.index("<header>") : page.index("</header>")]
    for text in ("64 kB", "dense 1.6 MB", "240", "dense 250", "95%", "dense 97%"):
        assert f">{text}<" in header
    assert "named right" not in captions_page(DENSE, PRUNED, [], [], Story(""))


def test_headline_without_a_dense_score_claims_none() -> None:
    assert headline(replace(DENSE, cider=0.0), PRUNED) == "25× smaller"


def test_embedded_image_is_small_enough() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    assert len(data_uri(noise)) < 150_000


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 bytes"), (1_500, "1.5 kB"), (69_127, "69 kB"), (1_644_020, "1.6 MB")]
)
def test_readable_bytes(count: int, text: str) -> None:
    assert readable_bytes(count) == text


def test_times() -> None:
    assert (times(30, 1), times(15, 10), times(1, 0)) == ("30×", "1.5×", "0.0×")


@pytest.mark.parametrize("high", [1e-4, 0.3, 0.99, 1.0, 1.7, 2.5, 4.2, 7.0, 9.9, 10.0, 123.0])
def test_ticks_reach_the_top_without_wasting_half_the_chart(high: float) -> None:
    ticks = y_ticks(high)
    assert 3 <= len(ticks) <= 4
    assert high * (1 - 1e-9) <= ticks[-1] <= 2.01 * high


def test_chart_places_its_points() -> None:
    below = line_chart("Loss", [Line("scst", "dense", [(0, 0.4), (100, -1.7)])])
    heights = [float(pair.split(",")[1]) for pair in re.findall(r'points="([^"]*)"', below)[0].split()]
    assert all(TOP <= y <= HEIGHT - BOTTOM for y in heights)
    assert heights[0] < heights[1]
    chart = line_chart("Loss", [Line("dense", "dense", [(0, 0.0), (100, 2.0)])], top=2.0)
    left, right = re.findall(r"([\d.]+),([\d.]+)", re.search(r'points="([^"]+)"', chart)[1])  # type: ignore[index]
    assert float(left[0]) < float(right[0])
    assert float(left[1]) > float(right[1])  # y grows downwards
    assert "100 steps" in chart
    whole = [Line("dense", "dense", [(0, 0.0), (100, 1.0)])]
    assert "%" not in line_chart("Loss", whole)
    assert ">100%<" in line_chart("Sparsity", whole, top=1.0, unit=".0%")


def test_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="Loss"):
        line_chart("Loss", [])


def test_thinning_keeps_both_ends() -> None:
    points = [(float(i), 0.0) for i in range(10_001)]
    kept = thin(points)
    assert len(kept) <= 240
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_page_replaces_an_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "index.html"
    write_page("one", target)
    write_page("two", target)
    assert target.read_text(encoding="utf8") == "two"
    assert list(target.parent.iterdir()) == [target]


def test_page_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"index\.html.*cannot be written"):
        write_page("one", tmp_path / "file" / "index.html")
