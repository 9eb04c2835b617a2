"""METEOR and SPICE: our side of the conversation with Java (a stub), and what is missing."""

import sys
from pathlib import Path

import pytest

from laconic.errors import MissingError
from laconic.metrics import external

STUB = """#!{python}
import json, os, sys
if "-stdio" in sys.argv:
    count = 0
    for line in sys.stdin:
        parts = line.rstrip("\\n").split(" ||| ")
        if parts[0] == "SCORE":
            assert "-Duser.language=en" in sys.argv
            count += 1
            print(len(parts), flush=True)
        else:
            print("0.5\\n" * count + str(sum(map(int, parts[1:])) / 100), flush=True)
else:
    assert os.environ["JDK_JAVA_OPTIONS"].count("--add-opens=java.base/java.") == 6
    rows = json.load(open(next(a for a in sys.argv if a.endswith("captions.json"))))
    scores = [{{"scores": {{"All": {{"f": len(row["refs"]) / 10}}}}}} for row in rows]
    json.dump(scores, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like pycocoevalcap with all its files, and a program `java` that answers."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(STUB.format(python=sys.executable))
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(java.parent))
    files = ["meteor/meteor-1.5.jar", "spice/spice-1.0.jar"]
    for name in [*files, *(f"spice/lib/{jar}" for jar in external.SPICE_JARS)]:
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(external, "_package", lambda metric: tmp_path / "package")
    return tmp_path / "package"


def test_conversation(package: Path) -> None:
    before = sorted(package.rglob("*"))
    references = [["a dog", "the dog"], ["a cat"]]
    assert external.meteor(references, ["a ||| dog", ""]) == pytest.approx((4 + 3) / 100)
    assert external.spice(references, ["a dog", "a cat"]) == pytest.approx(0.15)
    assert sorted(package.rglob("*")) == before  # nothing written beside the package


@pytest.mark.parametrize("metric", [external.meteor, external.spice])
@pytest.mark.parametrize("answer", ["echo no memory >&2; exit 1", "echo x; echo no memory >&2"])
def test_java_that_fails_is_not_a_score(package: Path, metric: object, answer: str) -> None:
    java = package.parent / "bin" / "java"
    java.write_text(f"#!/bin/sh\n{answer}\n")
    with pytest.raises(MissingError, match=r"no score.*no memory"):
        metric([["a dog"]] * 3000, ["a dog"] * 3000)


def test_what_is_missing_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "spice" / "lib" / external.SPICE_JARS[1]).unlink()
    with pytest.raises(MissingError, match=r"corenlp-3\.6\.0-models\.jar missing in .*Maven"):
        external.spice([["a"]], ["a"])
    (package / "meteor" / "meteor-1.5.jar").unlink()
    with pytest.raises(MissingError, match="reinstall pycocoevalcap"):
        external.meteor([["a"]], ["a"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="install Java"):
        external.spice([["a"]], ["a"])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'laconic\[metrics\]'"):
        external.meteor([["a"]], ["a"])
