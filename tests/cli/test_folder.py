"""`caption --folder`: options, messages and exit codes. tests/bulk tests the work itself."""

import json
import os
from pathlib import Path

import pytest

from laconic.bulk import worker
from laconic.captioner.engine import Engine
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import save
from laconic.cli import main
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary


def test_the_captions_are_those_of_named_photos(photos: Path, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "note.txt").write_text("no picture")
    assert main(["caption", str(packed), "--folder", "photos", "--out", "out.jsonl"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-2:] == [
        "out.jsonl: 5 captions",
        "out.jsonl.skipped.csv: 1 files skipped, with the reasons",
    ]
    assert "captioning: 6 of 6" in said.out
    assert said.err == ""
    assert main(["caption", str(packed), "photos", "--json", "named.json"]) == 0
    named = [
        (row["image"].removeprefix("photos/"), row["caption"]) for row in json.loads(Path("named.json").read_text())
    ]
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [(row["image"], row["caption"]) for row in rows] == named


def test_given_again_it_says_what_is_there(photos: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["caption", str(packed), "--folder", "photos", "-o", "out.json", "--beam", "1"]
    assert main(words) == 0
    assert [row["image_id"] for row in json.loads(Path("out.json").read_text())] == [0, 1, 2, 3, 4]
    monkeypatch.setattr(worker, "joined", None)
    assert main(words) == 0


def test_stopped(
    photos: Path, packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    words = ["caption", str(packed), "--folder", "photos", "--out", "out.csv"]
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "caption", stop)
        patched.setattr("sys.argv", ["laconic", *words])
        assert main(words) == 130
    said = capsys.readouterr().err
    assert said == f"laconic: stopped; what is done is kept, go on with: laconic {' '.join(words)}\n"
    assert not os.listdir("out.csv.parts/workers")
    assert main(words) == 0


def test_no_image_that_can_be_read(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/1.jpg").write_text("no picture")
    assert main(["caption", str(packed), "--folder", "photos", "--out", "out.csv"]) == 2
    assert Path("out.csv").read_text() == "image,caption\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "photos"], "--folder needs --out OUT"),
        (["photos", "--folder", "photos", "--out", "o.csv"], "--folder takes no IMAGE"),
        (["photos", "--out", "o.csv"], "go with --folder DIR"),
        (["--folder", "photos", "--out", "o.txt"], "o.txt: captions are written to .jsonl, .csv, .json"),
        (["--folder", "nowhere", "--out", "o.csv"], "nowhere: no such folder"),
        (["--folder", "photos", "--out", "old.csv"], "is there already and is no file of `laconic caption --folder`"),
        (["--folder", "photos", "--out", "-"], "give the name of a file"),
        (["--folder", "photos", "--out", "a.csv"], "a.csv.skipped.csv: is there already"),
        (["--folder", "photos", "--out", "b.csv"], "b.csv.parts: holds other files"),
        (["--folder", "dogs", "--out", "o.json"], "dogs.jpg: COCO results name images by number"),
        (["--folder", "photos", "--out", "o.csv", "--beam", "0"], "beam is 0"),
    ],
)
def test_what_is_refused_writes_nothing(
    photos: Path, packed: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    Path("dogs").mkdir()
    Path("dogs/dogs.jpg").touch()
    Path("old.csv").write_text("mine")
    Path("a.csv.skipped.csv").write_text("mine")
    Path("b.csv.parts").mkdir()
    Path("b.csv.parts/mine").touch()
    before = sorted(os.listdir())
    assert main(["caption", str(packed), *words]) == 2
    assert message in capsys.readouterr().err
    assert sorted(os.listdir()) == before


def test_a_captioner_of_regions_is_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ModelConfig(EncoderConfig("regions", channels=8), DecoderConfig(options={"word": 4, "hidden": 8}))
    save(ImageCaptioner(config, Vocabulary.build(["a dog runs"], 1)), tmp_path / "regions.safetensors")
    assert main(["caption", "regions.safetensors", "--folder", "photos", "--out", "out.csv"]) == 2
    assert "--folder is for photos" in capsys.readouterr().err
