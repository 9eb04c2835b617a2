"""`laconic caption photo.jpg`, where the first word may be a captioner or a photo; here another one is ready-made."""

from pathlib import Path

import pytest

import laconic
from laconic.captioner import ready_made
from laconic.cli import main


@pytest.fixture
def tiny(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for the ready-made one."""
    (tmp_path / "installed").mkdir()
    file = tmp_path / "installed/flickr8k_tiny.safetensors"
    file.write_bytes(packed.read_bytes())
    monkeypatch.setattr(ready_made, "FOLDER", file.parent)
    return file


@pytest.mark.parametrize(
    "words",
    [
        ["photos/0.png"],
        ["photos"],
        ["photos/0.png", "photos/1.png"],
        ["flickr8k_tiny", "photos/0.png"],
        ["--beam", "3", "photos/0.png"],
    ],
)
def test_the_first_word_may_be_a_photo(
    photos: Path, packed: Path, tiny: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["caption", *words]) == 0
    said, told = capsys.readouterr()
    assert ("captioned by flickr8k_tiny" in told) == ("flickr8k_tiny" not in words)  # said where nobody has named it
    named = [str(packed), *(word for word in words if word != "flickr8k_tiny")]
    assert main(["caption", *named]) == 0
    assert capsys.readouterr().out == said


def test_a_folder_of_any_size(photos: Path, tiny: Path) -> None:
    assert main(["caption", "--folder", "photos", "--out", "captions.jsonl"]) == 0
    assert len(Path("captions.jsonl").read_text().splitlines()) == 5


def test_every_verb_knows_its_name(photos: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "flickr8k_tiny"]) == 0
    assert len(laconic.load("flickr8k_tiny").caption(["photos/0.png"])) == 1
    assert laconic.load().caption(["photos/0.png"]) == laconic.load(tiny).caption(["photos/0.png"])
    Path("flickr8k_tiny").write_bytes(b"a file of that name goes first")
    assert main(["inspect", "flickr8k_tiny"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothere.jpg"], "nothere.jpg"),
        (["nothere.safetensors"], "no image given"),
        (["flickr8k_tiny"], "no image given"),
        ([], "no image given"),
    ],
)
def test_what_is_neither(
    photos: Path, tiny: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["caption", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_first_photo_that_cannot_be_read_is_one_of_several(
    photos: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.jpg").touch()
    Path("text.png").write_text("no picture")
    for name in ("empty.jpg", "text.png"):
        assert main(["caption", name]) == 2
        assert name in capsys.readouterr().err
        assert main(["caption", name, "photos/0.png"]) == 0
        said, told = capsys.readouterr()
        assert said.startswith("photos/0.png: ")
        assert name in told


def test_an_installation_without_it_says_so(photos: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.unlink()
    assert main(["caption", "photos/0.png"]) == 2
    assert "this installation of laconic lacks it" in capsys.readouterr().err
