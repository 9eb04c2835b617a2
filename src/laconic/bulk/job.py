"""The state of the work on a folder, beside the output: `captions.jsonl.parts/` for `captions.jsonl`.

    job.json       what was asked for and what was found: written once, by whoever is first
    listing.*      records and their index, of that process
    workers/       a file for each process that is alive
    claims/        see laconic.bulk.claims
    results/       one file for each shard that is done, written once
    finished.json  the counts, once the output is written

When the work is finished only job.json and finished.json stay, so that a process that starts late finds nothing to do.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laconic.bulk.claims import Claims, Worker, present
from laconic.bulk.listing import holds_files, records
from laconic.bulk.merge import SKIPPED_HEAD, format_of, with_coco_ids
from laconic.bulk.once import write_json_once
from laconic.bulk.results import Results
from laconic.bulk.shards import Shards, write_shards
from laconic.errors import ConfigError, DataError, LaconicWarning, printable

LISTING = "listing."  # before the token of the process that made it
FOLDERS = ("workers", "claims", "results")
POLL = 0.5  # seconds between two looks at what other processes do
PROBES = 32  # records that are looked for in a folder, to tell whether it is the one that was listed


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        folder: of photos, or a tar file of them.
        out: the file of captions to write; its suffix tells the format.
        asked: all that decides what the captions are, such as the captioner's digest; numbers and text by name.
        keep: leaves the state when the work is finished.
        shard: records of a shard; None chooses.
    """

    folder: Path
    out: Path
    asked: Mapping[str, Any]
    keep: bool = False
    shard: int | None = None

    @property
    def state(self) -> Path:
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def skipped(self) -> Path:
        return self.out.with_name(f"{self.out.name}.skipped.csv")

    @property
    def finished(self) -> Path:
        return self.state / "finished.json"

    @property
    def job(self) -> Path:
        return self.state / "job.json"

    def writes(self, path: str) -> bool:
        """Whether a path is one of the request's own, which may lie in the folder and is none of its photos."""
        return os.path.basename(path) in (self.out.name, self.state.name, self.skipped.name) and os.path.realpath(
            path
        ) in map(os.path.realpath, (self.out, self.state, self.skipped))


@dataclass(frozen=True)
class Job:
    """The work as one process takes part in it."""

    request: Request
    shards: Shards
    worker: Worker
    claims: Claims
    results: Results


def check_request(request: Request, overwrite: bool = False) -> None:
    """What can be told before a captioner is loaded. ConfigError or DataError, saying what to do."""
    format_of(request.out)
    state, skipped = request.state, request.skipped
    if os.path.lexists(state):
        if not state.is_dir():
            raise ConfigError(f"{printable(state)}: is no folder; the state of the work goes there, give another --out")
        if not request.job.exists() and any(
            name not in FOLDERS and not name.startswith((".", LISTING)) for name in os.listdir(state)
        ):
            raise ConfigError(f"{printable(state)}: holds other files; the state of the work goes there, rename it")
    if skipped.exists() and not overwrite and skipped.stat().st_size:
        with open(skipped, "rb") as file:
            if file.read(len(SKIPPED_HEAD)) != SKIPPED_HEAD.encode():
                raise ConfigError(
                    f"{printable(skipped)}: is there already and is no list of skipped images, which goes there; "
                    "rename it, or --overwrite"
                )
    folder = printable(request.folder)
    if request.job.exists():
        _check_asked(_read(request.job), request)
        if request.finished.exists() and not request.folder.exists():
            raise DataError(
                f"{folder}: no such folder; {printable(request.out)} was finished before, of the folder that was here "
                "then or of another one"
            )
    elif not request.folder.exists():
        raise DataError(f"{folder}: no such folder; give the folder that holds the images")
    elif not holds_files(request.folder):
        raise DataError(f"{folder}: holds no file; give the folder that holds the images")


def counts(request: Request) -> dict[str, int] | None:
    """Of a finished job, how many images, captions and skipped ones there are; None where it is not finished.

    Raises ConfigError where the job asked for something else or was of another folder, or its output is gone.
    """
    if not request.finished.exists():
        return None
    held = _read(request.job)
    _check_asked(held, request)
    _check_folder(held, request)
    if not request.out.exists():
        raise ConfigError(
            f"{printable(request.out)}: was finished, and is gone; delete {printable(request.state)} to begin anew"
        )
    return {name: int(count) for name, count in _read(request.finished).items()}


@contextmanager
def joined(request: Request) -> Iterator[Job]:
    """Takes part in the work, beginning it where nobody has. What this process has claimed is free after the block.

    ConfigError where the state is that of another job, DataError where the folder cannot be listed.
    """
    state = request.state
    for folder in FOLDERS:
        (state / folder).mkdir(parents=True, exist_ok=True)
    try:
        with present(state / "workers") as worker:
            claims = Claims(state / "claims", worker)
            shards = _shards(request, claims)
            yield Job(request, shards, worker, claims, Results(state / "results", shards))
    finally:
        if not request.job.exists():  # nothing was listed: leaves nothing, unless others are trying, too
            with contextlib.suppress(OSError):
                (state / "workers").rmdir()
                shutil.rmtree(state, ignore_errors=True)


def tidy(request: Request) -> None:
    """Removes what a finished job needs no more."""
    if request.keep or not request.finished.exists():
        return
    for path in request.state.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path not in (request.job, request.finished):
            with contextlib.suppress(OSError):
                path.unlink()


def _shards(request: Request, claims: Claims) -> Shards:
    """The listing that all share: made here, or by another process, which is waited for."""
    while not request.job.exists():
        if claims.take("listing", from_dead=True) and not request.job.exists():
            _begin(request, claims.worker)
        elif not request.job.exists():
            time.sleep(POLL)
    held = _read(request.job)
    _check_asked(held, request)
    try:
        listing = held["shards"]
        shards = Shards(request.state / listing.pop("path"), **listing)
    except (KeyError, TypeError, AttributeError):
        raise _damaged(request.job) from None
    if not request.finished.exists():
        _check_folder(held, request)
    return shards


def _begin(request: Request, worker: Worker) -> None:
    found = records(request.folder, request.state, request.writes)
    if format_of(request.out).identified:
        found = with_coco_ids(found)
    shards = write_shards(found, request.state / f"{LISTING}{worker.token}", request.shard)
    if not shards.total:
        raise DataError(f"{printable(request.folder)}: holds no image; give the folder that holds the images")
    document = {
        "program": "laconic caption",
        "asked": dict(request.asked),
        "top": _top(request),
        "probes": _probes(shards),
        "shards": {**asdict(shards), "path": shards.path.name},
    }
    write_json_once(request.job, document)


def _check_asked(held: Mapping[str, Any], request: Request) -> None:
    asked = held.get("asked")
    if not isinstance(asked, dict):
        raise _damaged(request.job)
    changed = [name for name in {**asked, **request.asked} if asked.get(name) != request.asked.get(name)]
    if changed:
        said = ", ".join(
            f"{name.replace('_', ' ')} {_short(asked.get(name))}, not {_short(request.asked.get(name))}"
            for name in changed
        )
        raise ConfigError(
            f"{printable(request.state)}: belongs to captions made otherwise ({said}); delete it to begin anew, "
            "or give another --out"
        )


def _probes(shards: Shards) -> list[str]:
    """Some of the listed files, from the whole of the listing, by their places in the folder."""
    places = sorted({shard * (len(shards) - 1) // max(1, PROBES - 1) for shard in range(PROBES)})
    return [record.tar or record.name for place in places if not (record := shards[place][0]).problem]


def _check_folder(held: Mapping[str, Any], request: Request) -> None:
    """ConfigError where the folder is another than was listed, as far as a look tells; warns where it has changed."""
    folder, top, probes = request.folder, held.get("top"), held.get("probes")
    if not isinstance(probes, list) or not all(isinstance(probe, str) for probe in probes):
        raise _damaged(request.job)
    if not folder.exists() or _top(request) == top:
        return
    there = sum((folder / probe).exists() for probe in probes) if folder.is_dir() else 0
    if 2 * there < len(probes):
        raise ConfigError(
            f"{printable(folder)}: is not the folder that was listed (it has {there} of {len(probes)} of those files); "
            f"delete {printable(request.state)} to begin anew, or give another --out"
        )
    warnings.warn(
        f"{printable(folder)}: has changed since it was listed; what has come since is not captioned: for that, delete "
        f"{printable(request.state)} to begin anew",
        LaconicWarning,
        stacklevel=2,
    )


def _top(request: Request) -> str:
    """Equal for folders whose visible entries have the same names, in whatever order they come, and for tar files of
    one size."""
    if not request.folder.is_dir():
        return f"{request.folder.stat().st_size} bytes" if request.folder.exists() else ""
    total = 0
    with os.scandir(request.folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not request.writes(entry.path):
                total += int.from_bytes(hashlib.sha256(os.fsencode(entry.name)).digest(), "little")
    return f"{total % 2**256:x}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> DataError:
    return DataError(f"{printable(path)}: damaged; delete its folder to begin anew")


def _short(value: Any) -> str:
    return f"{value:.12}" if isinstance(value, str) else str(value)
