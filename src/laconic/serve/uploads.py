"""Bodies of requests in memory, within limits of bytes and time.

Whoever sends slowly takes nothing from others: no thread waits for a body, each has to go on arriving, and where all
bodies together become too large, the one that has been silent for longest goes.
"""

import asyncio
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from laconic.serve.bodies import Reader, reader_for
from laconic.serve.settings import Settings

BUSY = {"Retry-After": "2"}


class Photo:
    """One image of a request, as its bytes arrived.

    name        as the form says it, fit to be shown; empty where the image is the whole body
    size        bytes
    data        the bytes, until they are dropped
    wanted      whether somebody waits for its caption
    in_thread   whether a thread has the bytes, which then stay until it is done
    """

    def __init__(self, name: str, data: bytes, uploads: "Uploads") -> None:
        self.name, self.size, self.data = name, len(data), data
        self.wanted, self.in_thread = True, False
        self._held: Uploads | None = uploads

    def forget(self) -> None:
        """Nobody waits for its caption any more."""
        self.wanted = False
        if not self.in_thread:
            self.drop()

    def drop(self) -> None:
        """Lets go of the bytes."""
        if self._held is not None:
            self._held.give_back(self.size)
            self._held, self.data = None, b""


@dataclass(eq=False)
class _Upload:
    """A body that is arriving."""

    reader: Reader
    timer: asyncio.Timeout
    ends: float  # by the loop's clock: all of it has to be here by then
    size: int = 0
    pushed_out: bool = False


class Uploads:
    """All bodies in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._arriving: dict[_Upload, None] = {}  # the one that has been silent for longest comes first
        self.held = 0
        """Bytes of bodies that are in memory."""

    async def read(self, request: Request) -> list[Photo]:
        """The photos of a request's body.

        Raises HTTPException: 413 for too many bytes or images, 408 for a body that is slow, 503 where others have
        taken the memory, 400 and 415 for what is no such body. Raises starlette's ClientDisconnect.
        """
        granted = self._settings
        self._check_length(request.headers.get("content-length", ""))
        kind = request.headers.get("content-type", "")
        now = asyncio.get_running_loop().time()
        first = now + min(granted.stall_timeout, granted.upload_timeout)
        upload = _Upload(reader_for(kind, granted.max_images), asyncio.timeout_at(first), now + granted.upload_timeout)
        self._arriving[upload] = None
        try:
            async with upload.timer:
                async for chunk in request.stream():
                    self._take(upload, chunk)
            photos = [Photo(name, data, self) for name, data in upload.reader.images()]
            self.held += sum(photo.size for photo in photos)
            return photos
        except TimeoutError:
            if upload.pushed_out:
                raise _too_full() from None
            raise HTTPException(
                408,
                f"the body arrived too slowly: more has to come within {granted.stall_timeout:g} s, and all of it "
                f"within {granted.upload_timeout:g} s; send it again",
            ) from None
        finally:
            self._drop(upload)

    def give_back(self, size: int) -> None:
        """So many bytes are not in memory any more."""
        self.held -= size

    def _check_length(self, length: str) -> None:
        if length.isdecimal() and int(length[:20]) > self._settings.body_bytes:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        most = self._settings.body_bytes
        return HTTPException(413, f"the body has more than {most:,} bytes; send fewer images at once, or smaller ones")

    def _take(self, upload: _Upload, chunk: bytes) -> None:
        if upload.pushed_out:
            raise TimeoutError
        if upload.size + len(chunk) > self._settings.body_bytes:
            raise self._too_large()
        upload.size += len(chunk)
        self.held += len(chunk)
        self._arriving[upload] = self._arriving.pop(upload)
        while self.held > self._settings.upload_bytes:
            self._push_out(upload)
        upload.reader.feed(chunk)
        now = asyncio.get_running_loop().time()
        upload.timer.reschedule(min(upload.ends, now + self._settings.stall_timeout))

    def _push_out(self, newest: _Upload) -> None:
        """The body that has been silent for longest goes; HTTPException where that is the newest itself."""
        stalest = next(iter(self._arriving))
        if stalest is newest:
            raise _too_full()
        self._drop(stalest)
        stalest.pushed_out = True
        if not stalest.timer.expired():
            stalest.timer.reschedule(asyncio.get_running_loop().time())

    def _drop(self, upload: _Upload) -> None:
        """Lets go of what has come of a body."""
        self.give_back(upload.size)
        upload.reader.clear()
        upload.size = 0
        self._arriving.pop(upload, None)


def _too_full() -> HTTPException:
    return HTTPException(503, "the server's memory for uploads is full; try again in a moment", BUSY)
