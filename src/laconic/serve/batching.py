"""Pixels to captions: what waits at the same time is captioned in one call of the engine.

There is no window of time in which photos are collected. A thread that is free takes its share of what is there: a
single photo at once, and under load, when photos have gathered while all threads were busy, many together. With one
thread all that waits goes in one call.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from laconic.data.images import Pixels
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding
from laconic.errors import LaconicError
from laconic.serve.metrics import Metrics

FORGETTING = 0.1  # weight of the last call in the mean time of an image


class Searches(Protocol):
    """What captions: laconic.captioner.engine.Engine."""

    def search(self, images: NDArray[np.uint8], decoding: Decoding) -> list[list[Hypothesis]]: ...


@dataclass(eq=False)
class _Waiting:
    pixels: Pixels
    decoding: Decoding
    found: "asyncio.Future[list[Hypothesis]]"


class Batches:
    """A queue of photos, and threads that caption them."""

    def __init__(self, engine: Searches, threads: int, most: int, metrics: Metrics) -> None:
        """`most`: photos in one call. The engine uses one thread for a call."""
        self._engine, self._threads, self._most, self._metrics = engine, threads, most, metrics
        self._free = threads
        self._pool = ThreadPoolExecutor(threads, "laconic-caption")
        self._queue: list[_Waiting] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._seconds = 0.01  # of a thread for an image, of late
        metrics.watch_queue(lambda: len(self._queue))

    async def caption(self, pixels: Pixels, decoding: Decoding) -> list[Hypothesis]:
        """Captions of one photo, best first; LaconicError where the captioner cannot say any."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(pixels, decoding, loop.create_future())
        self._queue.append(waiting)
        loop.call_soon(self._dispatch)  # what comes in the same turn of the loop goes together
        return await waiting.found

    def seconds_behind(self, images: int) -> float:
        """How long it takes to caption so many images, at the speed of late."""
        return images * self._seconds / self._threads

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self) -> None:
        """Gives each free thread its share of what waits.

        Where all are free, that is everything. Where others are busy it is half of what one thread would get: they come
        back for the rest, and the captions of a call, which all come at its end, come sooner.
        """
        self._queue = [one for one in self._queue if not one.found.done()]  # the others were given up
        parts = self._threads if self._free == self._threads else 2 * self._threads
        share = min(self._most, -(-len(self._queue) // parts))
        while self._free and self._queue:
            self._free -= 1
            call = asyncio.get_running_loop().create_task(self._call(self._take(share)))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _take(self, count: int) -> list[_Waiting]:
        """So many photos from the queue, fewer where fewer are searched like the first of them."""
        taken = [one for one in self._queue if one.decoding == self._queue[0].decoding][:count]
        self._queue = [one for one in self._queue if one not in taken]
        return taken

    async def _call(self, some: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            found = await loop.run_in_executor(self._pool, self._search, some)
            for one, captions in zip(some, found, strict=True):
                if one.found.done():
                    continue
                if isinstance(captions, LaconicError):
                    one.found.set_exception(captions)
                else:
                    one.found.set_result(captions)
        except Exception as error:  # a bug: whoever waits gets to know of it
            for one in some:
                if not one.found.done():
                    one.found.set_exception(error)
        finally:
            self._seconds += FORGETTING * ((loop.time() - started) / len(some) - self._seconds)
            self._free += 1
            self._dispatch()

    def _search(self, some: Sequence[_Waiting]) -> list[list[Hypothesis] | LaconicError]:
        """Captions of each photo; where the captioner fails over one of several, the others are captioned alone."""
        self._metrics.called(len(some))
        try:
            return list(self._engine.search(np.stack([one.pixels for one in some]), some[0].decoding))
        except LaconicError as error:
            return [error] if len(some) == 1 else [self._search([one])[0] for one in some]
