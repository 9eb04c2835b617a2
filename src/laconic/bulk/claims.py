"""Who works on what, told by files on a file system that all share; there is no server and no lock.

A process keeps a file in `workers` and touches it now and then. It claims a piece of work by creating the file
`<piece>.0`, which the system lets one process do. Where the claimer is dead, the claim passes to whoever creates
`<piece>.1`, and so on: a claim is never removed, so that nobody can mistake a new one for the old one. The claim with
the highest number holds.

Dead is who has removed its file, whose process is gone from this machine, or who has not touched its file for STALE
seconds. Times are those that the file system gave to two files, never those of machines' own clocks.
"""

import contextlib
import json
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BEAT = 15.0  # seconds between two touches
STALE = 180.0  # seconds without one after which a process counts as dead; NFS may show a touch a minute late


@dataclass(frozen=True)
class Worker:
    """This process, as others see it.

    Attributes:
        folder: of all workers' files.
        token: the name of its file.
    """

    folder: Path
    token: str

    @property
    def path(self) -> Path:
        return self.folder / self.token

    def now(self) -> float:
        """The file system's time. FileNotFoundError where the work is finished and the files are gone."""
        os.utime(self.path)
        return self.path.stat().st_mtime


@contextmanager
def present(folder: Path, beat: float = BEAT) -> Iterator[Worker]:
    """Within the block this process counts as alive; after it, what it has claimed is free."""
    worker = Worker(folder, secrets.token_hex(8))
    worker.path.write_text(json.dumps({"machine": _machine(), "pid": os.getpid()}))
    ended = threading.Event()
    thread = threading.Thread(target=_keep_touching, args=(worker, ended, beat), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        ended.set()
        thread.join(1.0)  # which may wait for a server
        with contextlib.suppress(OSError):
            worker.path.unlink()


def _keep_touching(worker: Worker, ended: threading.Event, beat: float) -> None:
    while not ended.wait(beat):
        with contextlib.suppress(OSError):  # a server that does not answer now may at the next beat
            os.utime(worker.path)


@dataclass(frozen=True)
class Claim:
    """A piece of work that this process has taken.

    Attributes:
        piece: its path in the folder of claims, without a number.
        number: how often it has passed from a dead process to another.
    """

    piece: Path
    number: int

    def holds(self) -> bool:
        """Whether nobody has taken it over meanwhile, this process having seemed dead."""
        return not _numbered(self.piece, self.number + 1).exists()


@dataclass(frozen=True)
class Claims:
    """Claims of one kind of work.

    Attributes:
        folder: of the files.
        worker: in whose name they are made.
        stale: as STALE.
    """

    folder: Path
    worker: Worker
    stale: float = STALE

    def take(self, piece: str, *, from_dead: bool = False) -> Claim | None:
        """Claims what nobody has claimed, `from_dead` also what dead processes have; None where another has it."""
        number = 0
        while not self._create(path := _numbered(self.folder / piece, number)):
            if not from_dead or not self._is_dead(path):
                return None
            number += 1
        return Claim(self.folder / piece, number)

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(self.worker.token)
        return True

    def _is_dead(self, claim: Path) -> bool:
        """Whether the maker of a claim is. One killed while it made the claim left no name; the claim's age tells."""
        token = claim.read_text()
        if not token:
            return self._is_old(claim)
        if token == self.worker.token:
            return False
        path = self.worker.folder / token
        try:
            text = path.read_text()
            return _is_gone(text) or self._is_old(path)
        except FileNotFoundError:
            return True

    def _is_old(self, path: Path) -> bool:
        now = self.worker.now()
        with open(path, "rb") as file:  # what is opened, NFS asks the server for
            return now - os.fstat(file.fileno()).st_mtime > self.stale


def _numbered(piece: Path, number: int) -> Path:
    return piece.with_name(f"{piece.name}.{number}")


def _is_gone(text: str) -> bool:
    """Whether a worker's file names a process of this machine that is no more. Where in doubt, its touches tell."""
    try:
        found = json.loads(text)
        machine, pid = found["machine"], int(found["pid"])
    except (ValueError, TypeError, KeyError):  # being written
        return False
    if os.name != "posix" or machine != _machine() or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


@cache
def _machine() -> str:
    """Equal for processes that can see each other's numbers: one machine since it was started, one container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
