"""No verb writes over what it reads, nor over anything but its own earlier output without being told."""

import dataclasses
import json
import os
import stat
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from laconic import store
from laconic.cli import VERBS, main
from laconic.cli.overwriting import check_paths
from laconic.cli.paths import Output

ROWS = [{"image_id": 1, "caption": "a dog runs"}, {"image_id": 2, "caption": "a red boat"}]
SCORE = "score --references refs.json --results res.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file of each kind."""
    monkeypatch.chdir(tmp_path)
    weights = {"w": np.eye(4, dtype=np.float32)}
    store.save(weights, "M")
    store.save(weights, "packed.safetensors")
    store.unpack("M", "dense.safetensors")
    safetensors.numpy.save_file(weights, "other.safetensors")
    Image.new("RGB", (8, 8)).save("a.jpg")
    Path("refs.json").write_text(json.dumps({"annotations": ROWS}))
    Path("res.json").write_text(json.dumps(ROWS))
    Path("recipe.toml").write_text("[training]\n")
    for name in ("RUN", "report", "models"):
        Path(name).mkdir()
    Path("models/model.safetensors").touch()
    Path("models/study.json").write_text("{}")
    store.save(weights, "RUN/model.safetensors")
    Path("RUN/recipe.json").write_text("{}")
    Path("README.md").write_text("mine")
    Path("report/README.md").write_text("# Report\n\n## Results\n")
    Path("link.json").symlink_to("refs.json")
    Path("M-link").symlink_to("M")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        # what it reads, by whatever name
        ("caption M --json a.jpg a.jpg", "--json a.jpg: is the file to read"),
        ("inspect M --json M", "--json M: is the file to read"),
        ("inspect M --json ./M-link", "is the file to read"),
        ("inspect M-link --json M", "is the file to read"),
        ("inspect M --json M --overwrite", "is the file to read"),
        (f"{SCORE} --json refs.json", "is the file to read"),
        (f"{SCORE} --json RUN/../res.json", "is the file to read"),
        (f"{SCORE} --json link.json --overwrite", "is the file to read"),
        ("diff M packed.safetensors --json packed.safetensors", "is the file to read"),
        ("unpack M -o M", "is the file to read"),
        ("pack M -o M-link", "is the file to read"),
        ("pack RUN -o RUN/model.safetensors", "is the file to read"),
        ("pack M -o dense.safetensors --values fine --images a.jpg dense.safetensors", "is the file to read"),
        ("evaluate M --json M", "is the file to read"),
        # twice the same
        ("evaluate M --captions x --json x", "--json x: is what --captions writes"),
        ("evaluate M --captions x --json RUN/../x", "is what --captions writes"),
        ("evaluate M --captions - --json -", "is what --captions writes"),
        # another kind of file
        ("caption M --json a.jpg b.jpg", "--json a.jpg: is there already and is no JSON of `laconic caption`"),
        ("inspect M --json refs.json", "is no JSON of `laconic inspect`"),
        ("inspect M --json recipe.toml", "is no JSON of `laconic inspect`"),
        ("inspect M --json packed.safetensors", "is no JSON of `laconic inspect`"),
        ("evaluate M --captions refs.json", "is no JSON of captions as COCO results"),
        ("pack M -o a.jpg", "-o a.jpg: is there already and is no packed file"),
        ("pack M -o other.safetensors", "is no packed file"),
        ("pack M -o dense.safetensors", "is no packed file"),
        ("unpack M -o packed.safetensors", "is no file of `laconic unpack`"),
        ("convert RUN -o refs.json", "is no packed file"),
        ("report RUN -o .", "is not empty and is no folder of a report"),
        ("report RUN -o README.md", "README.md: is a file"),
        ("train recipe.toml -o models", "is not empty and is no folder of a run; give another path\n"),
        ("train recipe.toml -o M", "M: is a file"),
        ("study recipe.toml -o models", "is no folder of a study"),
        # what belongs to a run
        ("pack RUN -o RUN/recipe.json", "belongs to the run in that folder"),
        ("pack M -o RUN/last.pt", "belongs to the run in that folder"),
        ("inspect RUN --json RUN/result.json", "belongs to the run in that folder"),
        # nowhere to write
        ("pack M -o -", "is standard output"),
        ("pack M -o /dev/null", "is no regular file"),
        ("unpack M -o /dev/stdout", "is no regular file"),
        ("inspect M --json RUN", "is a folder"),
        ("inspect M --json nowhere/x.json", "no folder nowhere"),
    ],
)
def test_a_file_that_would_be_lost_is_kept(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    before = contents(here)
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert contents(here) == before


@pytest.mark.parametrize(
    "line",
    [
        "inspect M --json new.json",
        "diff M packed.safetensors --json new.json",
        f"{SCORE} --json new.json",
        "unpack M -o new.safetensors",
        "pack M -o new.safetensors",
        "pack RUN -o RUN/small.safetensors",
    ],
)
def test_an_own_earlier_output_is_replaced(here: Path, line: str) -> None:
    assert main(line.split()) == 0
    before = contents(here)
    assert main(line.split()) == 0
    assert contents(here) == before


@pytest.mark.parametrize("old", ["a.jpg", "refs.json", "RUN/recipe.json"])
def test_overwrite_insists(here: Path, old: str) -> None:
    assert main(["inspect", "M", "--json", old, "--overwrite"]) == 0
    assert "tensors" in json.loads(Path(old).read_text())


@pytest.mark.parametrize("old", ["", "{}", "[]"])
def test_what_is_as_good_as_empty_is_replaced(here: Path, old: str) -> None:
    Path("x.json").write_text(old)
    assert main(["inspect", "M", "--json", "x.json"]) == 0
    assert "tensors" in json.loads(Path("x.json").read_text())


@pytest.mark.parametrize("old", ["[" * 100_000, '{"tensors": ', "\0", '{"file_bytes": 1}', "[1]", "7", "null", '"a"'])
def test_what_only_looks_like_json_is_kept(here: Path, old: str) -> None:
    Path("x.json").write_text(old)
    assert main(["inspect", "M", "--json", "x.json"]) == 2
    assert Path("x.json").read_text() == old


def test_links_to_what_is_there_or_not_yet(here: Path) -> None:
    Path("new-link").symlink_to("RUN/inspection.json")
    for _ in range(2):
        assert main(["inspect", "M", "--json", "new-link"]) == 0
    assert Path("new-link").is_symlink()
    assert "tensors" in json.loads(Path("RUN/inspection.json").read_text())
    Path("lost").symlink_to("nowhere/x.json")
    assert main(["inspect", "M", "--json", "lost"]) == 2
    Path("circle").symlink_to("circle")
    assert main(["inspect", "M", "--json", "circle"]) == 2


def test_devices_are_written_into(here: Path) -> None:
    assert main(["inspect", "M", "--json", "/dev/null"]) == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    "line",
    [
        "inspect E",
        "inspect M --json E",
        "inspect M --json=",
        "caption M E",
        "caption M a.jpg E",
        "caption E a.jpg",
        "diff M E",
        "unpack M -o E",
        "pack M -o x --images E",
        "convert RUN -o x --calibrate a.npy E",
        "score --references E --results res.json",
        "evaluate M --root E",
        "evaluate M --regions E",
        "report E -o x",
        "report RUN -o x --recipes E",
        "study s.toml --out E",
        "study s.toml --cache E",
        "train E",
        "train recipe.toml -o E",
        "demo --out E",
    ],
)
def test_an_empty_path_is_refused(here: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert main(["" if word == "E" else word for word in line.split()]) == 2
    said = capsys.readouterr()
    assert "'' is no path" in said.err
    assert not said.out


FOLDER = ("export", "folder")


def test_no_verb_has_an_output_that_is_not_checked() -> None:
    """Options called `json`, `captions`, `csv` or `out` are outputs, and the folder of an export."""
    for name, verb in VERBS.items():
        hints = typing.get_type_hints(verb.options(), include_extras=True)
        outputs = [
            key for key, hint in hints.items() if any(isinstance(m, Output) for m in getattr(hint, "__metadata__", ()))
        ]
        wanted = [key for key in hints if key in ("json", "captions", "out", "csv") or (name, key) == FOLDER]
        assert sorted(outputs) == sorted(wanted), name
        if outputs and name not in (
            "demo",
            "train",
            "slim",
            "study",
            "compress",
            "export",
        ):  # these go on with what they find, or refuse it
            assert "overwrite" in hints, name


def test_a_folder_of_a_demo_is_known_by_its_runs(tmp_path: Path) -> None:
    from laconic.cli.demo import Demo

    demo: Any = dataclasses.replace(Demo(), out=tmp_path)
    check_paths(demo)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(Exception, match="is no folder of a demo"):
        check_paths(demo)
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense/recipe.json").write_text("{}")
    check_paths(demo)
