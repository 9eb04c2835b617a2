"""METEOR and SPICE, which are Java programs that the package pycocoevalcap brings.

Nothing is downloaded and nothing is written beside the package. Where a program or a file is
missing, MissingError says what to install. It deliberately does not use pycocoevalcap's own Python
wrappers: those break under a JVM locale with decimal commas, leave pipes undrained, download and
write into site-packages.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from laconic.errors import MissingError

ENGLISH = (
    "-Duser.language=en",
    "-Duser.country=US",
)  # decimal points, whatever the machine's locale
SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
# SPICE's serializers reach into these packages, which Java 16 and later close. Java 8 ignores the
# variable.
OPENED = ("lang", "util", "math", "net", "text", "util.concurrent")
LAST_WORDS = 300  # characters of a program's error output that go into a message


def meteor(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> float:
    """METEOR 1.5 (Denkowski and Lavie 2014) of a corpus, 0 to 1, as in coco-caption.

    Takes tokens, like every metric here; about 15 s for 5,000 images. Raises MissingError without
    Java or pycocoevalcap, and where the program fails.
    """
    jar = _package("METEOR") / "meteor" / "meteor-1.5.jar"
    if not jar.is_file():
        raise MissingError(f"METEOR: {jar} is missing; reinstall pycocoevalcap")
    command = [_java("METEOR"), *ENGLISH, "-Xmx2G", "-jar", str(jar)]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as errors:
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        )
        requests, answers = cast(IO[str], program.stdin), cast(IO[str], program.stdout)
        try:
            statistics = []
            for group, candidate in zip(references, candidates, strict=True):
                _send(requests, " ||| ".join(["SCORE", *group, _line(candidate)]))
                statistics.append(_receive(answers))
            _send(requests, " ||| ".join(["EVAL", *statistics]))
            each = [_receive(answers) for _ in statistics]  # the score of each caption ...
            return float(_receive(answers)) if each else 0.0  # ... and then that of the corpus
        except (OSError, ValueError):
            program.kill()
            program.wait()
            errors.seek(0)
            said = _last_words(errors.read())
            raise MissingError(f"METEOR: Java gave no score; {said}") from None
        finally:
            program.kill()
            program.wait()
            answers.close()
            with contextlib.suppress(OSError):  # what could not be sent is still in the buffer
                requests.close()


def spice(references: Sequence[Sequence[str]], candidates: Sequence[str]) -> float:
    """SPICE 1.0 (Anderson et al. 2016) of a corpus: the mean F-score of its captions, 0 to 1.

    Needs about 8 GB of memory. Raises MissingError without Java, pycocoevalcap or the two Stanford
    CoreNLP files, and where the program fails.
    """
    folder = _package("SPICE") / "spice"
    java = _java("SPICE")
    missing = [name for name in SPICE_JARS if not (folder / "lib" / name).is_file()]
    if missing:
        raise MissingError(
            f"SPICE: {' and '.join(missing)} missing in {folder / 'lib'}; copy "
            "them there from Stanford CoreNLP 3.6.0 (Maven: "
            "edu.stanford.nlp:stanford-corenlp:3.6.0 and its classifier models)"
        )
    opened = " ".join(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED)
    options = f"{os.environ.get('JDK_JAVA_OPTIONS', '')} {opened}".strip()
    with tempfile.TemporaryDirectory(prefix="laconic-spice-") as work:
        rows = [
            {"image_id": i, "test": candidate, "refs": list(group)}
            for i, (group, candidate) in enumerate(zip(references, candidates, strict=True))
        ]
        source, target = Path(work, "captions.json"), Path(work, "scores.json")
        source.write_text(json.dumps(rows), encoding="utf-8")
        command = [java, *ENGLISH, "-Xmx8G", "-jar", str(folder / "spice-1.0.jar"), str(source)]
        command += ["-cache", str(Path(work, "cache")), "-out", str(target), "-subset", "-silent"]
        Path(work, "cache").mkdir()
        run = subprocess.run(command, cwd=work, env={**os.environ, "JDK_JAVA_OPTIONS": options}, capture_output=True)
        try:
            scores = [float(row["scores"]["All"]["f"]) for row in json.loads(target.read_bytes())]
            return sum(scores) / len(scores)
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            raise MissingError(f"SPICE: Java gave no scores; {_last_words(run.stderr)}") from None


def _package(metric: str) -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise MissingError(f"{metric}: pycocoevalcap is not installed; pip install 'laconic[metrics]'")
    return Path(places[0])


def _java(metric: str) -> str:
    java = shutil.which("java")
    if java is None:
        raise MissingError(f"{metric}: the program java is not on the PATH; install Java 8 or later")
    return java


def _line(caption: str) -> str:
    return caption.replace("|||", "").replace("  ", " ")


def _send(pipe: IO[str], request: str) -> None:
    pipe.write(request + "\n")
    pipe.flush()


def _receive(pipe: IO[str]) -> str:
    answer = pipe.readline().strip()
    if not answer:
        raise ValueError("no answer")
    return answer


def _last_words(output: bytes) -> str:
    text = " ".join(output.decode("utf-8", "replace").split())
    return f"it said: {text[-LAST_WORDS:]}" if text else "it said nothing"
