"""From claimed shards to published results, and the whole work of one process.

While one shard is captioned the images of the next are decoded. Batches do not cross shards, so that captions depend on
the listing alone, not on who captions what.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol

from laconic.bulk.claims import Claim
from laconic.bulk.job import POLL, Job, Request, check_request, counts, joined, tidy
from laconic.bulk.listing import Record
from laconic.bulk.merge import Captioned, write_captions
from laconic.bulk.once import write_json_once
from laconic.bulk.tars import member_bytes
from laconic.data.images import Pixels, read_image, read_image_bytes, resize
from laconic.decode.search import Decoding
from laconic.errors import DataError, printable

BATCH = 32  # images captioned at once
AHEAD = 2 * BATCH  # images that are decoded, or being decoded, before they are captioned
THREADS = 4  # that decode


class Captioner(Protocol):
    """What captions pixels: an engine, or the module of PyTorch."""

    @property
    def side(self) -> int: ...

    def caption(self, images: list[Pixels], decoding: Decoding, batch: int) -> list[str]: ...


Watch = Callable[[int, int], None]
"""Is told how many images are done, by all processes, and how many there are."""


def caption_folder(
    request: Request, decoding: Decoding, load: Callable[[], Captioner], watch: Watch = lambda done, of: None
) -> dict[str, int]:
    """Takes part in captioning a folder until the output is there; how many captions it has, how many were skipped.

    Any number of processes may do so at once, or later where all were killed. `load` gives the captioner, and is called
    only where there is something to do. Raises ConfigError or DataError for what cannot be done, OSError where the disk
    is full; what is done until then stays.
    """
    check_request(request)
    found = counts(request)
    if found is None:
        try:
            with joined(request) as job:
                if not request.finished.exists():
                    work(job, decoding, load, watch)
                    finish(job)
        except FileNotFoundError:  # another process has finished, and removed what this one was about to read
            if not request.finished.exists():
                raise
        found = counts(request)
    tidy(request)
    if found is None:
        raise DataError(f"{printable(request.state)}: was removed while it was in use; give the same command again")
    return found


def work(job: Job, decoding: Decoding, load: Callable[[], Captioner], watch: Watch) -> None:
    """Captions shards until all are done, here or elsewhere."""
    of, captioner = job.shards.total, None
    job.results.look()
    watch(job.results.images_done(), of)
    while not job.results.all_done():
        claimed = chain(_claimable(job, from_dead=False), _claimable(job, from_dead=True))
        first = next(claimed, None)
        if first is None:
            time.sleep(POLL)
        else:
            captioner = captioner or load()
            caption_shards(job, chain([first], claimed), decoding, captioner, watch)
        job.results.look()
        watch(job.results.images_done(), of)


def finish(job: Job) -> None:
    """Sees to it that the output is written, by this process or another. OSError as `write_captions`."""
    request = job.request
    while not request.finished.exists():
        if job.claims.take("output", from_dead=True):
            found = write_captions(job.results, request.out, request.skipped)
            write_json_once(request.finished, {"images": job.shards.total, **found})
        else:
            time.sleep(POLL)


def caption_listed(job: Job, shards: Iterable[int], decoding: Decoding, captioner: Captioner) -> int:
    """Captions those of some shards that nobody has claimed who is alive; how many there were."""
    return caption_shards(job, _claimed(job, shards, from_dead=True), decoding, captioner)


def _claimable(job: Job, *, from_dead: bool) -> Iterator[tuple[int, Claim]]:
    """Shards that are now this process's, as many as are asked for; each process begins elsewhere."""
    undone = job.results.undone(int(job.worker.token, 16) % len(job.shards))
    return _claimed(job, undone, from_dead=from_dead)


def _claimed(job: Job, shards: Iterable[int], *, from_dead: bool) -> Iterator[tuple[int, Claim]]:
    for shard in shards:
        claim = job.claims.take(f"{shard:07}", from_dead=from_dead)
        if claim is not None and not job.results.has(shard):
            yield shard, claim


# Captioning


@dataclass
class _UnderWay:
    """A shard whose images are being decoded, in order."""

    number: int
    claim: Claim
    waiting: deque[Record]
    decoding: deque[tuple[Record, Future[Pixels | str]]] = field(default_factory=deque)


def caption_shards(
    job: Job,
    claimed: Iterable[tuple[int, Claim]],
    decoding: Decoding,
    captioner: Captioner,
    watch: Watch = lambda done, of: None,
) -> int:
    """Captions shards as they are claimed, one ahead, and publishes what comes of each; how many there were."""
    size, root, remaining = captioner.side, job.request.folder, iter(claimed)
    done, coming = 0, deque[_UnderWay]()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:

        def fill() -> None:
            """At most AHEAD images of two shards; the second is claimed when all of the first are on their way."""
            room = AHEAD - sum(len(shard.decoding) for shard in coming)
            while room > 0:
                shard = next((shard for shard in coming if shard.waiting), None)
                if shard is not None:
                    record = shard.waiting.popleft()
                    shard.decoding.append((record, pool.submit(_pixels, record, root, size)))
                    room -= 1
                elif len(coming) < 2 and (found := next(remaining, None)) is not None:
                    coming.append(_UnderWay(*found, deque(job.shards[found[0]])))
                else:
                    return

        try:
            fill()
            while coming:
                rows = list(_captions(coming[0], fill, captioner, decoding, lambda count: _tell(job, watch, count)))
                _publish(job, coming.popleft(), rows)
                done += 1
                fill()
        finally:
            pool.shutdown(cancel_futures=True)
    return done


def _captions(
    shard: _UnderWay, fill: Callable[[], None], captioner: Captioner, decoding: Decoding, tell: Callable[[int], None]
) -> Iterator[Captioned]:
    """What becomes of each record of a shard, in order."""
    batch: list[tuple[Record, Pixels | str]] = []
    count = 0
    while shard.decoding:
        record, future = shard.decoding.popleft()
        batch.append((record, future.result()))
        count += 1
        fill()
        if len(batch) == BATCH or not shard.decoding:
            images = [found for _, found in batch if not isinstance(found, str)]
            captions = iter(captioner.caption(images, decoding, batch=BATCH) if images else ())
            for record, found in batch:
                yield (
                    Captioned(record.name, None, found)
                    if isinstance(found, str)
                    else Captioned(record.name, next(captions))
                )
            batch = []
            tell(count)


def _tell(job: Job, watch: Watch, here: int) -> None:
    watch(min(job.shards.total, job.results.images_done() + here), job.shards.total)


def _publish(job: Job, shard: _UnderWay, rows: list[Captioned]) -> None:
    """Unless this process seemed dead for so long that another has taken the shard. DataError where the whole folder
    has gone, as when a drive is unplugged: its images are not bad."""
    folder = job.request.folder
    if all(row.caption is None for row in rows) and not _has_anything(folder):
        raise DataError(f"{printable(folder)}: has gone; bring it back and give the same command again")
    if shard.claim.holds():
        job.results.publish(shard.number, rows)


def _has_anything(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except NotADirectoryError:
        return True
    except OSError:
        return False


def _pixels(record: Record, root: Path, size: int) -> Pixels | str:
    """(size, size, 3), or why there are none."""
    if record.problem:
        return record.problem
    try:
        if record.tar:
            path = root if record.tar == "." else root / record.tar
            image = read_image_bytes(member_bytes(path, record.offset, record.size), record.name, size)
            return resize(image, size)
        path = root / record.name
        return resize(read_image(path, size), size)
    except DataError as error:
        text = str(error)
        for name in (printable(root / record.name), printable(record.name)):
            text = text.removeprefix(f"{name}: ")
        return text
    except MemoryError:
        return "too little memory is free to read it; close other programs"
