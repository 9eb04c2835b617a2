"""Folders captioned by one process, by several, by killed ones; the output is the same, byte for byte."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from stub import Stub, draw, request

from laconic.bulk import worker
from laconic.bulk.job import joined
from laconic.bulk.worker import caption_folder
from laconic.decode.search import Decoding
from laconic.errors import ConfigError, DataError, LaconicWarning

STUB = Path(__file__).parent / "stub.py"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw(folder, 60)
    (folder / "1" / "note.txt").write_text("no picture")
    (folder / "2" / "cut.png").write_bytes((folder / "2" / "2.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def unbroken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "captions.jsonl"
    stub = Stub()
    assert run(photos, out, stub) == {"images": 62, "captions": 60, "skipped": 2}
    assert stub.done == 60
    return out


def run(folder: Path, out: Path, stub: Stub | None = None, **options: object) -> dict[str, int]:
    return caption_folder(request(folder, out, **options), Decoding(), lambda: stub or Stub())  # type: ignore[arg-type]


def files(out: Path) -> list[bytes]:
    return [out.read_bytes(), out.with_name(f"{out.name}.skipped.csv").read_bytes()]


def test_all_images_in_order(photos: Path, unbroken: Path) -> None:
    rows = [json.loads(line) for line in unbroken.read_text().splitlines()]
    names = [f"{number % 3}/{number}.png" for number in range(60)]
    assert [row["image"] for row in rows] == sorted(names)
    assert len({row["caption"] for row in rows}) == 60
    skipped = list(csv.reader(io.StringIO(files(unbroken)[1].decode())))
    assert [name for name, _ in skipped] == ["image", "1/note.txt", "2/cut.png"]
    assert skipped[1][1].startswith("not a JPEG, PNG")
    assert skipped[2][1].startswith("truncated or damaged")
    assert sorted(os.listdir(f"{unbroken}.parts")) == ["finished.json", "job.json"]


@pytest.fixture
def start(photos: Path, tmp_path: Path) -> Iterator[Callable[[float], "subprocess.Popen[str]"]]:
    """Starts a process whose captioner takes so long; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start_one(delay: float) -> "subprocess.Popen[str]":
        words = [sys.executable, str(STUB), str(photos), str(tmp_path / "captions.jsonl"), str(delay), "5"]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def kill_after(process: "subprocess.Popen[str]", images: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= images:
            break
    process.kill()
    process.wait()


def test_two_killed_processes_and_a_third_that_goes_on(
    photos: Path, unbroken: Path, tmp_path: Path, start: Callable[[float], "subprocess.Popen[str]"]
) -> None:
    out = tmp_path / "captions.jsonl"
    first, second = start(0.04), start(0.04)
    kill_after(first, 15)
    second.kill()
    second.communicate()
    assert not out.exists()
    done = sum(path.name.isdecimal() for path in Path(f"{out}.parts", "results").iterdir())
    assert 0 < done < 13
    stub = Stub()
    assert run(photos, out, stub)["captions"] == 60
    assert 60 - 5 * done <= stub.done <= 65 - 5 * done  # what is done stays done; the last shard is a short one
    assert files(out) == files(unbroken)


def test_the_survivor_takes_over(
    unbroken: Path, tmp_path: Path, start: Callable[[float], "subprocess.Popen[str]"]
) -> None:
    first, second = start(0.04), start(0.01)
    kill_after(first, 5)
    _, said = second.communicate(timeout=60)
    assert (second.returncode, said) == (0, "")
    assert files(tmp_path / "captions.jsonl") == files(unbroken)


def test_killed_at_any_moment(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that changes something on disk is once the last one of its process, which goes on without it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the system lives on
    small = tmp_path / "small"
    small.mkdir()
    for name in ("1.png", "cut.png"):
        shutil.copy(next(photos.rglob(name)), small)
    expected = tmp_path / "expected.jsonl"
    run(small, expected, shard=1)
    killed = 0
    while exit_at_call(killed, partial(run, small, out := tmp_path / f"{killed}.jsonl", shard=1)):
        assert run(small, out, shard=1) == {"images": 2, "captions": 1, "skipped": 1}
        assert files(out) == files(expected)
        assert sorted(os.listdir(f"{out}.parts")) == ["finished.json", "job.json"]
        killed += 1
    assert killed > 30


def exit_at_call(number: int, work: Callable[[], object]) -> bool:
    """Whether a process that does the work gets as far as to the call, and dies there."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    remaining = number

    def counted(whole: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal remaining
            remaining -= 1
            if remaining < 0:
                os._exit(9)
            return whole(*arguments, **options)

        return call

    for name in ("open", "link", "replace", "unlink", "mkdir", "rmdir", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)


def test_a_finished_job_is_not_done_again(photos: Path, unbroken: Path) -> None:
    before = unbroken.stat().st_mtime_ns
    stub = Stub()
    assert run(photos, unbroken, stub)["captions"] == 60
    assert stub.done == 0
    assert unbroken.stat().st_mtime_ns == before


def test_another_captioner_or_folder_is_refused(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"captioner stub, not other.*delete it to begin anew"):
        run(photos, unbroken, captioner="other")
    out = tmp_path / "captions.jsonl"
    with joined(request(photos, out)):
        pass
    draw(tmp_path / "others" / "deep", 8)
    with pytest.raises(ConfigError, match="is not the folder that was listed"):
        run(tmp_path / "others", out)


def test_a_finished_job_is_of_its_own_folder(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    """The output of one folder is not taken for that of another, or of none."""
    draw(tmp_path / "others" / "deep", 8)
    with pytest.raises(ConfigError, match="is not the folder that was listed"):
        run(tmp_path / "others", unbroken)
    with pytest.raises(DataError, match=r"missing: no such folder; .* was finished before"):
        run(tmp_path / "missing", unbroken)
    draw(tmp_path / "few", 4)
    out = tmp_path / "captions.jsonl"
    run(tmp_path / "few", out)
    (tmp_path / "few" / "new").mkdir()
    with pytest.warns(LaconicWarning, match="has changed since it was listed; what has come since is not captioned"):
        assert run(tmp_path / "few", out)["captions"] == 4


def test_a_finished_job_is_of_its_own_tar_file(tmp_path: Path) -> None:
    for name, count in (("one", 2), ("other", 12)):
        draw(tmp_path / name, count)
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            tar.add(tmp_path / name, ".")
    out = tmp_path / "captions.jsonl"
    assert run(tmp_path / "one.tar", out) == run(tmp_path / "one.tar", out)
    with pytest.raises(ConfigError, match="is not the folder that was listed"):
        run(tmp_path / "other.tar", out)


def test_photos_that_come_and_go_meanwhile(tmp_path: Path) -> None:
    draw(tmp_path / "photos", 8)
    out = tmp_path / "captions.csv"
    with joined(request(tmp_path / "photos", out, 2)):
        pass
    (tmp_path / "photos" / "0" / "3.png").unlink()
    (tmp_path / "photos" / "new").mkdir()
    with pytest.warns(LaconicWarning, match="has changed since it was listed"):
        assert run(tmp_path / "photos", out) == {"images": 8, "captions": 7, "skipped": 1}
    assert files(out)[1] == b"image,reason\n0/3.png,cannot be opened: No such file or directory\n"


def test_a_folder_that_goes_is_no_folder_of_bad_images(tmp_path: Path) -> None:
    draw(tmp_path / "photos", 8)
    out = tmp_path / "captions.csv"
    with joined(request(tmp_path / "photos", out, 2)):
        pass
    (tmp_path / "photos").rename(tmp_path / "away")
    (tmp_path / "photos").mkdir()  # where a drive was mounted
    with pytest.raises((DataError, ConfigError)):
        run(tmp_path / "photos", out)
    (tmp_path / "photos").rmdir()
    with pytest.raises(DataError, match="has gone; bring it back"):
        run(tmp_path / "photos", out)
    (tmp_path / "away").rename(tmp_path / "photos")
    assert run(tmp_path / "photos", out)["captions"] == 8


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_nothing_to_caption_leaves_nothing(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    with pytest.raises(DataError, match="give the folder that holds the images"):
        run(tmp_path / folder, tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == ["empty"]


def test_output_within_the_folder(tmp_path: Path) -> None:
    draw(tmp_path, 4)
    out = tmp_path / "captions.jsonl"
    assert run(tmp_path, out, shard=1) == {"images": 4, "captions": 4, "skipped": 0}
    shutil.rmtree(f"{out}.parts")
    assert run(tmp_path, out, shard=1) == {"images": 4, "captions": 4, "skipped": 0}


def test_a_full_disk_loses_nothing(
    photos: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "captions.jsonl"
    results = 0

    def full(descriptor: int) -> None:
        nonlocal results
        results += 1
        if results > 8:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as raised:
            run(photos, out)
    assert raised.value.filename is not None
    assert not out.exists()
    stub = Stub()
    run(photos, out, stub)
    assert 0 < stub.done < 60
    assert files(out) == files(unbroken)


def test_who_seemed_dead_does_not_publish(photos: Path, tmp_path: Path) -> None:
    with joined(request(photos, tmp_path / "out.jsonl")) as job:
        claim = job.claims.take("0000000")
        assert claim is not None
        (job.claims.folder / "0000000.1").write_text("another")
        assert worker.caption_shards(job, [(0, claim)], Decoding(), Stub()) == 1
        assert not job.results.has(0)


def test_progress_counts_what_was_done_before(photos: Path, tmp_path: Path) -> None:
    asked = request(photos, tmp_path / "out.jsonl", 30)
    with joined(asked) as job:
        claim = job.claims.take("0000001")
        assert claim is not None
        worker.caption_shards(job, [(1, claim)], Decoding(), Stub())
    shown: list[tuple[int, int]] = []
    caption_folder(asked, Decoding(), Stub, lambda done, of: shown.append((done, of)))
    assert shown[0] == (30, 62)
    assert shown[-1] == (62, 62)
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
