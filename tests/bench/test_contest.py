"""The contest with ways that are made up: what is timed, left out, compared and said."""

import json
from pathlib import Path

import pytest
import torch

from laconic.bench import contest as room
from laconic.bench.contest import ENGINE, Contestant, Result, Row, Search, Subject, contest
from laconic.bench.given import POSITIONS, random_inputs
from laconic.captioner.image_captioner import ImageCaptioner
from laconic.captioner.packing import save
from laconic.cli import main
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.runtime.inputs import Inputs
from laconic.spec.model import DecoderConfig, EncoderConfig, ModelConfig
from laconic.text import Vocabulary


def saying(*captions: tuple[int, ...]) -> Contestant:
    found = [[Hypothesis(tokens, 0.0, (), True)] for tokens in captions]
    return Contestant(lambda subject: lambda decoding: found)


def failing(error: Exception) -> Contestant:
    def make(subject: Subject) -> Search:
        raise error

    return Contestant(make)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(EncoderConfig("regions", channels=6), DecoderConfig(options={"word": 4, "hidden": 8}))
    path = tmp_path_factory.mktemp("packed") / "tiny.safetensors"
    save(ImageCaptioner(config, Vocabulary.build(["a dog runs", "a boat"], 1)), path)
    return path


@pytest.fixture
def subject(packed: Path) -> Subject:
    return Subject(packed, random_inputs(Subject(packed, Inputs()).spec, 2))


def test_captions_are_compared_with_those_of_the_first(subject: Subject) -> None:
    ways = {"A": saying((1,), (2,)), "B": saying((1,), (3,)), "C": saying((1,), (2,))}
    result = contest(subject, Decoding(), 1, contestants=ways)
    assert [(row.name, row.equal) for row in result.rows] == [("A", 2), ("B", 1), ("C", 2)]


def test_what_fails_or_is_not_installed_is_left_out_with_its_reason(subject: Subject) -> None:
    ways = {
        "A": saying((1,), (2,)),
        "wrong": failing(RuntimeError("one line\nmany lines")),
        "silent": failing(NotImplementedError()),
        "missing": Contestant(saying().make, ("no_such_package",)),
    }
    result = contest(subject, Decoding(), 1, contestants=ways)
    assert result.left_out == {
        "wrong": "one line", "silent": "NotImplementedError", "missing": "no_such_package is not installed"
    }  # fmt: skip
    assert result.verdict() == ["the engine did not run: it was not asked for"]
    with pytest.raises(ConfigError, match="nothing here runs it: one line"):
        contest(subject, Decoding(), 1, contestants={"wrong": ways["wrong"]})


def test_what_is_faster_is_said() -> None:
    rows = (Row(ENGINE, 0.03, 1, False), Row("torch int8", 0.02, 1, False), Row("torch float32", 0.3, 1, True))
    result = Result("file", 1, 5, 16, 3, rows, {})
    assert result.verdict() == ["torch int8 is 1.50 times as fast as the engine here"]
    assert [result.over_engine(row) for row in rows] == pytest.approx([1, 2 / 3, 10])
    assert Result("file", 1, 5, 16, 3, rows[::2], {}).verdict() == ["nothing here is faster than the engine"]


def test_random_inputs_are_those_of_the_seed(subject: Subject) -> None:
    again = random_inputs(subject.spec, 2)
    assert again.features is not None
    assert subject.inputs.features is not None
    assert again.features.shape == (2 * POSITIONS, 6)
    assert (again.features == subject.inputs.features).all()


def test_the_command_line(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = {ENGINE: saying((1,), (2,)), "torch int8": saying((1,), (3,)), "odd": failing(RuntimeError("not here"))}
    monkeypatch.setattr(room, "CONTESTANTS", ways)
    table, numbers = tmp_path / "bench.csv", tmp_path / "bench.json"
    words = ["bench", str(packed), "--images", "2", "--rounds", "1", "--csv", str(table), "--json", str(numbers)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "torch int8" in shown
    assert "odd: left out, not here" in shown
    assert table.read_text().startswith("way,seconds_per_image,over_engine,equal,images")
    assert [row["equal"] for row in json.loads(numbers.read_text())["rows"]] == [2, 1]
    assert main(words) == 0  # earlier outputs are written over
    assert main(["bench", str(packed), "--rounds", "0"]) == 2
    assert "--rounds 0: give at least 1" in capsys.readouterr().err
