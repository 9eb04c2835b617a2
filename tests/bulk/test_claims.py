"""Claims: one process has a piece of work, and the dead have none."""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import pytest

from laconic.bulk.claims import Claims, Worker, present
from laconic.bulk.once import write_once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workers").mkdir()
    (tmp_path / "claims").mkdir()
    return tmp_path


@pytest.fixture
def claims(folder: Path) -> Iterator[Claims]:
    with present(folder / "workers") as worker:
        yield Claims(folder / "claims", worker)


def another(folder: Path, pid: int | None = None, machine: str = "elsewhere", age: float = 0.0) -> Worker:
    """A worker of another machine, by default, last seen so many seconds ago."""
    worker = Worker(folder / "workers", os.urandom(8).hex())
    worker.path.write_text(json.dumps({"machine": machine, "pid": pid or os.getpid()}))
    os.utime(worker.path, (time.time() - age,) * 2)
    return worker


def own_machine(claims: Claims) -> str:
    return str(json.loads(claims.worker.path.read_text())["machine"])


@pytest.mark.parametrize("dead", [0, 3])
def test_a_race_has_one_winner_for_each_piece(folder: Path, dead: int) -> None:
    """Threads of several processes, after so many processes have died over each piece."""
    for number in range(dead):
        gone = another(folder, age=1000.0)
        for piece in range(50):
            (folder / "claims" / f"{piece}.{number}").write_text(gone.token)
    with ExitStack() as stack:  # they live until all have taken what they could
        crowd = [Claims(folder / "claims", stack.enter_context(present(folder / "workers"))) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda one: [p for p in range(50) if one.take(str(p), from_dead=True)], crowd)
            won = [piece for pieces in found for piece in pieces]
    assert sorted(won) == list(range(50))


def test_a_race_of_processes(folder: Path) -> None:
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        won = [pool.submit(take_free, folder, 200) for _ in range(3)]
        assert sorted(piece for one in won for piece in one.result()) == list(range(200))


def take_free(folder: Path, pieces: int) -> list[int]:
    with present(folder / "workers") as worker:
        claims = Claims(folder / "claims", worker)
        return [piece for piece in range(pieces) if claims.take(str(piece))]


def test_who_lives_keeps_a_claim(folder: Path, claims: Claims) -> None:
    for worker in (another(folder), another(folder, machine=own_machine(claims))):
        assert Claims(folder / "claims", worker).take(worker.token)
        assert claims.take(worker.token, from_dead=True) is None
    mine = claims.take("mine")
    assert mine is not None
    assert claims.take("mine", from_dead=True) is None
    assert mine.holds()


@pytest.mark.parametrize("fate", ["left", "killed", "silent"])
def test_a_dead_claim_is_taken_over_once(folder: Path, claims: Claims, fate: str) -> None:
    gone = another(
        folder,
        pid=2**22 + 1,  # beyond what Linux gives
        machine=own_machine(claims) if fate == "killed" else "elsewhere",
        age=1000.0 if fate == "silent" else 0.0,
    )
    old = Claims(folder / "claims", gone).take("piece")
    assert old is not None
    if fate == "left":
        gone.path.unlink()
    assert claims.take("piece") is None
    assert old.holds()
    new = claims.take("piece", from_dead=True)
    assert new is not None
    assert new.holds()
    assert not old.holds()
    assert Claims(folder / "claims", another(folder)).take("piece", from_dead=True) is None


def test_a_number_on_another_machine_tells_nothing(folder: Path, claims: Claims) -> None:
    worker = another(folder, pid=2**22 + 1, machine="elsewhere")
    assert Claims(folder / "claims", worker).take("piece")
    assert claims.take("piece", from_dead=True) is None


def test_a_claim_without_a_name_is_dead_when_it_is_old(folder: Path, claims: Claims) -> None:
    path = folder / "claims" / "piece.0"
    path.touch()
    assert claims.take("piece", from_dead=True) is None
    os.utime(path, (0, 0))
    assert claims.take("piece", from_dead=True)


def test_a_wrong_clock_of_this_machine_changes_nothing(
    folder: Path, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = another(folder)
    assert Claims(folder / "claims", worker).take("piece")
    monkeypatch.setattr(time, "time", lambda: 10.0**12)
    assert claims.take("piece", from_dead=True) is None


def test_touches_go_on_until_the_block_ends(folder: Path) -> None:
    with present(folder / "workers", beat=0.01) as worker:
        os.utime(worker.path, (0, 0))
        deadline = time.monotonic() + 10
        while worker.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert worker.path.stat().st_mtime > 0
    assert not worker.path.exists()


def test_a_file_is_written_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: write_once(tmp_path / "file", bytes([n]) * 1000), range(40)))
    assert sum(won) == 1
    assert (tmp_path / "file").read_bytes() == bytes([won.index(True)]) * 1000
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert write_once(tmp_path / "file", b"first")
    assert not write_once(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]
