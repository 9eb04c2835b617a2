"""The verb `serve`: its options, and what it says before it serves."""

import sys
from pathlib import Path
from typing import Any

import pytest

from laconic.cli import main
from laconic.cli.serve import Serve
from laconic.serve import server
from laconic.serve.settings import Settings


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The services that would have been run."""
    services: list[Any] = []

    def instead(service: Any, sockets: Any, say: Any, *, log: Any) -> None:
        for one in sockets:
            one.close()
        service.close()
        services.append(service)

    monkeypatch.setattr(server, "run", instead)
    return services


def test_defaults_are_those_of_the_settings(photos: Path, packed: Path, run: list[Any]) -> None:
    assert main(["serve", str(packed), "--port", "0"]) == 0
    assert run[0].settings == Settings()


def test_options(photos: Path, packed: Path, run: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = "--beam 5 --max-length 9 --length-penalty 1 --threads 1 --batch 2 --queue 20 --timeout 3 --upload-timeout 4"
    more = "--stall-timeout 2 --max-images 7 --max-megabytes 1.5 --max-megapixels 2 --decoding-megabytes 50"
    hosts = ["--allow-host", "a.example", "b.example"]
    assert main(["serve", str(packed), "--port", "0", *words.split(), *more.split(), *hosts]) == 0
    found: Settings = run[0].settings
    assert (found.decoding.beam, found.decoding.max_length, found.decoding.length_penalty) == (5, 9, 1)
    assert (found.threads, found.batch, found.queue, found.max_images) == (1, 2, 20, 7)
    assert (found.timeout, found.upload_timeout, found.stall_timeout) == (3, 4, 2)
    assert (found.body_bytes, found.pixels, found.decoding_bytes) == (1_500_000, 2_000_000, 50_000_000)
    assert found.hosts == ("a.example", "b.example")
    said = capsys.readouterr()
    assert said.out.startswith("tiny captions photos at http://127.0.0.1:")
    assert said.err == ""


def test_beyond_this_machine_it_says_so(
    photos: Path, packed: Path, run: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(packed), "--port", "0", "--host", "0.0.0.0"]) == 0
    said = capsys.readouterr()
    assert "listens at 0.0.0.0, beyond this machine" in said.err
    assert "http://127.0.0.1:" in said.out


def test_the_captioner_that_comes_with_laconic(
    photos: Path, packed: Path, run: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from laconic.captioner import ready_made

    packed.with_name("flickr8k_tiny.safetensors").write_bytes(packed.read_bytes())
    monkeypatch.setattr(ready_made, "FOLDER", packed.parent)
    assert main(["serve", "--port", "0"]) == 0
    assert run[0].name == "flickr8k_tiny"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothere.safetensors"], "nothere.safetensors"),
        (["photos/0.png"], "photos/0.png"),
        (["--port", "70000"], "--port 70000"),
        (["--port", "-1"], "--port -1"),
        (["--beam", "0"], "beam is 0"),
        (["--queue", "3"], "the queue of 3"),
        (["--timeout", "nan"], "timeout is nan"),
        (["--max-megabytes", "inf"], "--max-megabytes inf"),
        (["--host", "no.such.host.invalid"], "no such host"),
        (["--hots", "x"], "--host"),
    ],
)
def test_wrong_use_is_one_line(
    photos: Path, packed: Path, run: list[Any], capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    captioner = [] if not words[0].startswith("-") else [str(packed)]
    assert main(["serve", *captioner, *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not run


def test_without_the_extra(
    photos: Path, packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("laconic.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(packed), "--port", "0"]) == 2
    assert capsys.readouterr().err == "laconic: serving needs a few packages more: pip install 'laconic[serve]'\n"


def test_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    said = capsys.readouterr().out
    assert "127.0.0.1" in said
    assert all(f"--{name.replace('_', '-')}" in said for name in Serve.__dataclass_fields__ if name != "file")
