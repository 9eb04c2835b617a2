"""From photos to answers: so many at once, each with its captions or with what is wrong with it."""

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException

from laconic.captioner.engine import Engine
from laconic.captioner.inputs import reads_regions
from laconic.decode.beams import Hypothesis
from laconic.decode.search import Decoding, tokens_at_most
from laconic.errors import ConfigError, DataError
from laconic.machine.cores import cores
from laconic.serve.batching import Batches
from laconic.serve.decoding import Decoder
from laconic.serve.metrics import Metrics
from laconic.serve.settings import Settings
from laconic.serve.uploads import Photo, Uploads

Answer = dict[str, Any]
"""What is said of one image, as JSON: see `openapi`."""


class Service:
    """One captioner, and all that is in the making for it."""

    def __init__(self, engine: Engine, name: str, settings: Settings) -> None:
        """`engine` should use one thread: `settings` say how many calls of it run side by side. `name` is shown.

        Raises ConfigError where the captioner reads region features, or its captions cannot be as long.
        """
        if reads_regions(engine.spec):
            raise ConfigError(
                f"{name}: captions region features, which nobody can photograph; give one that reads photos"
            )
        self.engine, self.name, self.settings = engine, name, settings
        self.check(settings.decoding)
        self.metrics = Metrics()
        self.uploads = Uploads(settings)
        threads = settings.threads or cores()
        self._decoder = Decoder(engine.spec.model.encoder.size, threads, settings)
        self._batches = Batches(engine, threads, settings.batch, self.metrics)
        self.accepted = 0
        """Images that have no answer yet."""
        self.working = 0
        """Requests that have no answer yet."""
        self.stopping = False
        """Whether no further requests are accepted."""
        self.metrics.watch(lambda: self.accepted, lambda: self.uploads.held)

    def check(self, decoding: Decoding) -> None:
        """ConfigError where the captioner cannot search like that."""
        radix = self.engine.vocabulary.radix
        tokens_at_most(decoding.max_length, radix.digits if radix else 1)

    @contextmanager
    def accept(self) -> Iterator[None]:
        """A request that will be answered whatever comes. HTTPException (503) once the server is stopping."""
        if self.stopping:
            raise HTTPException(503, "the server is stopping; send it to another one, or again later", _after(5))
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1

    async def answer(self, photos: Sequence[Photo], decoding: Decoding) -> list[Answer]:
        """An answer for each photo, in their order. HTTPException: 503 where the queue is full, 504 after too long."""
        with self._places(len(photos)):
            tasks = [asyncio.create_task(self._one(photo, decoding)) for photo in photos]
            try:
                async with asyncio.timeout(self.settings.timeout):
                    return await asyncio.gather(*tasks)
            except TimeoutError:
                raise HTTPException(
                    504, f"captioning took longer than {self.settings.timeout:g} s; send fewer images at once"
                ) from None
            finally:
                for task in tasks:
                    task.cancel()

    def close(self) -> None:
        self._decoder.close()
        self._batches.close()

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        if self.accepted + count > self.settings.queue:
            seconds = self._batches.seconds_behind(self.accepted)
            raise HTTPException(503, "the server has its hands full; try again in a moment", _after(seconds))
        self.accepted += count
        try:
            yield
        finally:
            self.accepted -= count

    async def _one(self, photo: Photo, decoding: Decoding) -> Answer:
        clock = asyncio.get_running_loop().time
        started = clock()
        said: Answer = {"name": photo.name, "bytes": photo.size}
        try:
            pixels = await self._decoder.pixels(photo)
        except DataError as error:
            return {**said, "error": str(error)}
        found = await self._batches.caption(pixels, decoding)
        best, *others = [self._said(one) for one in found]
        return {**said, "milliseconds": _milliseconds(clock() - started), **best, "alternatives": others}

    def _said(self, found: Hypothesis) -> Answer:
        words = self.engine.vocabulary.decode(found.tokens)
        return {"caption": words, "log_probability": round(math.fsum(found.log_probs), 4)}


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
