"""Points by size: which of them no smaller one equals, and that they can be drawn."""

from pathlib import Path

import pytest

from laconic.report.frontier import Point, envelope


def test_the_envelope_is_what_no_smaller_file_equals() -> None:
    points = [
        Point("large", 4e6, 50, 50),
        Point("no better", 3e6, 45, 50),
        Point("good", 2e6, 49, 50),
        Point("as good and larger", 2.5e6, 49, 50),
        Point("small", 1e6, 45, 50),
        Point("as small, worse", 1e6, 44, 50),
        Point("of a weaker one", 0.5e6, 38, 40),
    ]
    assert [point.name for point in envelope(points)] == ["of a weaker one", "good", "large"]


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from laconic.report.drawing import drawing, write_figure
    from laconic.report.frontier import frontier_figure

    with drawing():
        write_figure(frontier_figure([Point("a", 1e6, 45, 50)], [Point("b, COCO", 9e6, 120, 121)]), tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000
