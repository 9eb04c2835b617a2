"""`caption` over many images: progress, and nothing lost where it is stopped."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laconic.captioner import captioning
from laconic.cli import main
from laconic.cli import progress as progress_module
from laconic.cli.documents import lines_with_bar
from laconic.errors import DataError


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    whole = captioning.caption_images

    def some(*arguments: Any) -> Iterator[tuple[int, str]]:
        for done, found in enumerate(whole(*arguments)):
            if done == count:
                raise error
            yield found

    monkeypatch.setattr(captioning, "caption_images", some)


@pytest.mark.parametrize("target", ["out.json", "-"])
def test_stopped_half_way(
    photos: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    stop_after(monkeypatch, 3, KeyboardInterrupt())
    assert main(["caption", str(packed), "photos", "--json", target]) == 130
    said = capsys.readouterr()
    rows = json.loads(Path(target).read_text() if target != "-" else said.out)
    assert [row["image"] for row in rows] == ["photos/0.png", "photos/1.png", "photos/2.png"]
    kept = "; out.json holds their captions" if target != "-" else ""
    assert said.err == f"laconic: stopped after 3 of 5 images{kept}\n"


def test_stopped_at_once_an_earlier_file_stays(photos: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["caption", str(packed), "photos", "--json", "out.json"]
    assert main(words) == 0
    before = Path("out.json").read_text()
    stop_after(monkeypatch, 0, KeyboardInterrupt())
    assert main(words) == 130
    assert Path("out.json").read_text() == before


def test_failed_half_way(
    photos: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(monkeypatch, 2, DataError("damaged"))
    assert main(["caption", str(packed), "photos", "--json", "out.json"]) == 2
    assert capsys.readouterr().err == "laconic: damaged\n"
    assert len(json.loads(Path("out.json").read_text())) == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("out", "err", "shown"),
    [(io.StringIO, Terminal, True), (Terminal, Terminal, True), (Terminal, Terminal, False)],
)
def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, out: type, err: type, shown: bool) -> None:
    """Below the lines where these go to the terminal; on standard error where they go elsewhere."""
    monkeypatch.setenv("TERM", "xterm")
    streams = {"stdout": out(), "stderr": err()}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with lines_with_bar("captioning", 2, shown=shown) as step:
        step(1, "a.jpg: \x1b[31ma dog")
        step(2, "b.jpg: a boat")
    found = {name: stream.getvalue() for name, stream in streams.items()}
    bar_on = "stdout" if shown and out is Terminal else "stderr"
    assert "captioning" in found[bar_on]
    assert "100%" in found[bar_on]
    assert ("a.jpg: \\x1b[31ma dog" in found["stdout"]) == shown
    if bar_on == "stderr":
        assert found["stdout"] == ("a.jpg: \\x1b[31ma dog\nb.jpg: a boat\n" if shown else "")


def test_no_bar_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress_module, "_Bars", None)
    with lines_with_bar("captioning", 2, shown=True) as step:
        step(1, "a.jpg: a dog")
    assert capsys.readouterr() == ("a.jpg: a dog\n", "")
